"""The phrases that the quality checks go by, in the languages asked for most. Every pattern is linear in its text."""

from __future__ import annotations

import re
from typing import Final

_I = re.IGNORECASE


class Guarded:
    """A pattern that is looked for only where one of its words is there: most texts are done with in a microsecond.

    Args:
        words: in small letters; every text in which the pattern is found holds one of them.
        patterns: of which the first that is found counts.
    """

    __slots__ = ("_ascii", "_words", "patterns")

    def __init__(self, words: tuple[str, ...], *patterns: re.Pattern[str]) -> None:
        self._words = words
        self._ascii = tuple(word for word in words if word.isascii())
        self.patterns = patterns

    def search(self, text: str) -> re.Match[str] | None:
        """Return what the first pattern that is in the text found there."""
        low = text.lower()
        if not any(map(low.__contains__, self._ascii if low.isascii() else self._words)):
            return None
        return self.unguarded(text)

    def unguarded(self, text: str) -> re.Match[str] | None:
        """Return the same without the guard."""
        return next((found for pattern in self.patterns if (found := pattern.search(text))), None)


UNSPACED: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

# --- length ---------------------------------------------------------------------------------------------------------

SHORTENING_KINDS: Final = frozenset({"summarise", "extraction", "translation"})

# A length: its number and unit. It counts where a word that asks for text stands before it, and no ceiling does.
LENGTH: Final = re.compile(
    r"(?<![\w.,])(?P<count>\d{1,5})[ -]?(?P<unit>words?|wörter|worten?|mots|palabras|palavras|parole|слова?|słów|"
    r"woorden|kelime|paragraphs?|absätze|paragraphes|párrafos|parágrafos|paragrafi|абзац\w*|akapit\w*|sentences?|sätze|"
    r"phrases|frases|oraciones|frasi|предложени\w*|pages?|seiten|páginas|pagine|страниц\w*|字|文字|词|단어|자)"
    r"(?![a-zа-я])",
    _I,
)
PRODUCE: Final = re.compile(
    r"\b(?:write|compose|draft|create|produce|generate|give me|need|explain|describe|discuss|schreib|verfass|erklär|"
    r"beschreib|écri[srv]|rédige|explique|décri[srv]|escrib|redact|explica|describ|escrev|redija|descrev|scriv|spieg|"
    r"descriv|napisz|schrijf|напиши|составь|опиши|объясни|yaz)|写|撰写|書|작성|써",
    _I,
)
CEILING: Final = re.compile(
    r"(?:at most|no more than|not more than|up to|under|less than|fewer than|within|max(?:imum)?\.?(?: of)?|below|"
    r"shorter than|exceed(?:ing)?|limit\w*(?: to| of)?|höchstens|maximal|weniger als|unter|au plus|moins de|maximum|"
    r"como máximo|menos de|máximo|no máximo|al massimo|meno di|не более|до|максимум|不超过|最多|以内|以下|"
    r"최대)\W*(?:\w+\s)?$|\b(?:wrote|have|has|had|this|these|those|following|my|our|the)\b(?: \w+)?\W*$",
    _I,
)
# Words of an ask that wants something brief, whatever length it names besides (the title of a 500-word essay).
BRIEF: Final = re.compile(
    r"\b(?:titles?|headlines?|slogans?|taglines?|tweets?|subject lines?|one[- ]liners?|one word|single word|"
    r"one sentence|single sentence|brief(?:ly)?|short|concise(?:ly)?|tl;?dr|shorten|condense|cut|summar\w+|"
    r"only (?:answer|reply|say)|just (?:answer|reply|say)|yes or no|names?|topics?|outline|proofread|count|how many|"
    r"how long|grade|rate|titel|kurz\w*|knapp|titre|bref|brève\w*|court\w*|título|breve\w*|cort[oa]s?|curt[oa]s?|"
    r"titolo|заголов\w*|назван\w*|кратк\w*|коротк\w*)\b|标题|題名|简短|简要|短く|タイトル|제목|짧게|以内|以下|不超过",
    _I,
)
_UNIT_WORDS: Final = (
    (re.compile(r"字|文字|자", _I), 0.5),  # a character of these scripts is half a word; see count_words
    (re.compile(r"words?|w[öo]rt|mots|pala|parole|слов|słów|woord|kelime|词|단어", _I), 1.0),
    (re.compile(r"para|abs|párr|абзац|akapit", _I), 30.0),
    (re.compile(r"sent|sätz|phrase|frase|orac|frasi|предл", _I), 6.0),
    (re.compile(r"page|seite|pág|pagin|страниц", _I), 250.0),
)


def unit_words(unit: str) -> float:
    """Return how many words a unit of length stands for (a paragraph 30, a sentence 6, a page 250)."""
    return next((count for pattern, count in _UNIT_WORDS if pattern.match(unit)), 0.0)


_GENRE_PATTERN: Final = re.compile(
    r"\b(?:write|compose|draft|create|produce|generate)\b(?: me| us)?(?: an?| the)?(?: [\w-]+){0,3}? (?:essay|article|"
    r"blog post|report|speech|tutorial|cover letter|story|lesson plan|business plan)\b(?! (?:title|headline|name|"
    r"topic|idea|outline|about me\?))|\bschreib\w*\b(?: \w+){0,4} (?:aufsatz|essay|artikel|bericht|rede|geschichte|"
    r"bewerbungsschreiben)\b|\b(?:écri\w+|rédige\w*)(?: \w+){0,3} (?:dissertation|essai|article|rapport|discours|"
    r"histoire|lettre de motivation)\b|\b(?:escrib\w+|redact\w+)(?: \w+){0,3} (?:ensayo|artículo|informe|discurso|"
    r"cuento|historia|carta de presentación)\b|\b(?:escrev\w+|redija)(?: \w+){0,3} (?:ensaio|redação|artigo|relatório|"
    r"discurso|conto|história)\b|\bscriv\w+(?: \w+){0,3} (?:saggio|articolo|relazione|discorso|racconto|storia)\b|"
    r"\b(?:напиши\w*|составь\w*)(?: \w+){0,3} (?:эссе|сочинение|статью|отчёт|отчет|речь|рассказ|доклад)\b|写(?:一篇|"
    r"个|一个).{0,12}(?:文章|作文|论文|报告|故事|演讲稿)|(?:作文|記事|エッセイ|物語|レポート|スピーチ)を(?:書|作成)|"
    r"(?:에세이|기사|보고서|이야기|연설문)를? (?:써|작성)",
    _I,
)
_GENRE: Final = Guarded(
    (
        *("write", "compose", "draft", "create", "produce", "generate", "schreib", "écri", "rédige", "escrib"),
        *("redact", "escrev", "redija", "scriv", "напиши", "составь", "写", "書", "作成", "써", "작성"),
    ),
    _GENRE_PATTERN,
)
_COUNTED = re.compile(r"-(?:word|sentence|line)\b", _I)  # a six-word story
_GENRE_FLOOR_WORDS = 30


def genre_floor(ask: str) -> int:
    """Return the fewest words that an ask for a long genre can be answered in; 0 for any other ask."""
    return _GENRE_FLOOR_WORDS if _GENRE.search(ask) and not (BRIEF.search(ask) or _COUNTED.search(ask)) else 0


# --- errors ---------------------------------------------------------------------------------------------------------

TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\):|Exception in thread \"|goroutine \d+ \[|panic: ")
ERROR_PAGE: Final = re.compile(
    r"(?:<!doctype html|<html)[^\0]{0,1500}?<title>[^<]{0,80}?(?:\b[45]\d\d\b|error|bad gateway|unavailable|"
    r"timed? ?out|attention required|just a moment|not found|forbidden)",
    _I,
)
SERVICE_ERROR: Final = re.compile(
    r"(?:http(?:/\d(?:\.\d)?)?(?: error)? ?)?(?:error(?: code)?:? )?\b(?:500 internal server error|502 bad gateway|"
    r"503 service (?:temporarily )?unavailable|504 gateway time-?out|429 too many requests|401 unauthorized|403 "
    r"forbidden)|internal server error|bad gateway|service (?:is )?(?:temporarily |currently )?unavailable|gateway "
    r"time-?out|upstream (?:connect|request) (?:error|timeout)|error code: \d{3}\b|(?:api )?rate limit (?:reached|"
    r"exceeded)|(?:the )?(?:request|connection) (?:was )?timed out|(?:the )?model is (?:currently )?(?:overloaded|"
    r"loading|unavailable)|cuda (?:error|out of memory)|(?:torch\.)?(?:cuda\.)?outofmemoryerror|context (?:length|"
    r"window) exceeded|connection (?:refused|reset)|\[errno \d+\]|\{\s*\"error\"\s*:|"
    r"\{\s*\"detail\"\s*:\s*\"[^\"]*(?:error|fail|not found|unauthori)|\[object object\]|(?:an? )?(?:unexpected |"
    r"unknown |internal )?error (?:has )?(?:occurred|while (?:processing|generating))|something went wrong|failed to "
    r"(?:generate|process|fetch|connect|load)\b|segmentation fault|(?:es ist )?ein (?:unerwarteter |interner )?fehler "
    r"(?:ist )?aufgetreten|une erreur (?:inattendue |interne )?(?:s'est produite|est survenue)|(?:ha ocurrido|se ha "
    r"producido|ocurrió) un error|(?:ocorreu|houve) um erro|si è verificato un errore|произошла (?:непредвиденная |"
    r"внутренняя )?ошибка|внутренняя ошибка сервера|wystąpił błąd|bir hata oluştu|er is een fout opgetreden|(?:系统|"
    r"服务器|请求)?(?:内部)?(?:发生|出现)了?(?:未知)?错误|服务器(?:内部)?错误|请求超时|"
    r"(?:サーバー)?(?:内部)?エラーが発生しました|(?:서버 )?(?:내부 )?오류가 발생했습니다|حدث خطأ",
    _I,
)
PLAIN_ERROR: Final = re.compile(
    r"(?:[A-Za-z_][\w.]{0,80})?(?:Error|Exception): \S|(?:fatal|FATAL|error|ERROR|Error|Fehler|Erreur|Errore|Erro|"
    r"Ошибка|Błąd)(?:\[\w+\]| \d+)?: |\[(?:ERROR|FATAL)\]|(?:错误|エラー|오류)[：:]|bash: |sh: \d|npm ERR!"
)
# Asks about errors, logs or what a program prints: there an error message may be the answer.
ABOUT_ERRORS: Final = re.compile(
    r"error|exception|traceback|raise|throw|fail|crash|panic|stack trace|output|print|\blogs?\b|http|status|return|"
    r"display|result|message|fehler|ausgabe|ausnahme|erreur|affiche|sortie|fallo|salida|imprime|erro\b|saída|errore|"
    r"stampa|ошибк|исключен|вывед|вывод|błąd|hata|错误|异常|输出|报错|返回|エラー|例外|出力|오류|에러|출력|خطأ",
    _I,
)

# --- refusals -------------------------------------------------------------------------------------------------------

_I_CANNOT = r"\bI(?: can't| cannot| can not| won't| will not|(?: am|'m) (?:unable|not able) to)"
_FLAT: Final = (
    re.compile(
        rf"{_I_CANNOT} (?:\w+ ){{0,2}}?(?:assist|comply|fulfil|help (?:you )?with (?:that|this|your))|\bas an? (?:AI|"
        rf"artificial intelligence|(?:large )?language model)[^.]{{0,60}}\b(?:can't|cannot|unable|not able|won't|"
        r"not programmed)|\bI(?: must| have to| need to)(?: respectfully| politely)? (?:decline|refuse)|\b(?:this|"
        r"that|your) request (?:violates|goes against|is against)|against my (?:guidelines|programming|policy|"
        r"policies)",
        _I,
    ),
    re.compile(
        r"\bals (?:KI|sprachmodell|künstliche)[^.]{0,60}nicht|\ben tant (?:qu'IA|que modèle|"
        r"qu'intelligence)[^.]{0,60}ne p|\bcomo (?:una? )?(?:IA|modelo de (?:lenguaje|linguagem)|intelig[eê]ncia "
        r"artificial)[^.]{0,60}n[oã]o? p|\bcome (?:IA|modello linguistico|intelligenza)[^.]{0,60}non p|\bкак "
        r"(?:языковая модель|ИИ|искусственный)[^.]{0,60}не|作为(?:一个|一名)?(?:AI|人工智能|语言模型).{0,30}(?:不能|"
        r"无法)",
        _I,
    ),
)
_HEDGED: Final = (
    re.compile(
        rf"\b(?:sorry|apologi[sz]e|unfortunately)[^.!?]{{0,30}}?{_I_CANNOT}|{_I_CANNOT} (?:\w+ ){{0,2}}?(?:help(?! "
        rf"but)|"
        r"provide|answer|create|generate|produce|write|do (?:that|this)|share|discuss|complete|engage|participate|"
        r"continue|support|offer|respond|process|give you)\b|\bI(?:'m| am) not (?:comfortable|allowed|permitted)|\bI "
        r"(?:don't|do not) feel comfortable",
        _I,
    ),
    re.compile(
        r"\b(?:tut mir leid|entschuldigung|leider)[^.!?]{0,40}\bnicht (?:weiter)?(?:helfen|beantworten|erstellen|"
        r"schreiben|unterstützen|erfüllen|nachkommen|behilflich|geben|machen)|\bich kann[^.!?]{0,50}\bnicht "
        r"(?:weiter)?(?:helfen|beantworten|unterstützen|erfüllen|nachkommen)|\b(?:désolée?|regrette|"
        r"malheureusement)[^.!?]{0,40}\b(?:ne (?:peux|suis|puis) pas|impossible)|\bje ne (?:peux|suis|puis) pas (?:en "
        r"mesure |capable |autorisée? )?(?:de |d'|à )?(?:vous |t'|y |te )?(?:aider|répondre|fournir|créer|générer|"
        r"satisfaire|accéder)|\b(?:lo siento|disculpa|lamento|lamentablemente)[^.!?]{0,40}\bno puedo|\bno puedo "
        r"(?:ayudar|proporcionar|cumplir|responder|crear|generar|asistir)|\b(?:desculpe|sinto muito|lamento|"
        r"infelizmente)[^.!?]{0,40}\bnão posso|\bnão posso (?:ajudar|fornecer|responder|criar|gerar)|\b(?:mi dispiace|"
        r"purtroppo|spiacente)[^.!?]{0,40}\bnon posso|\bnon posso (?:aiutar|fornire|rispondere|creare|assister|"
        r"generare)|\bhet spijt me[^.!?]{0,40}\bniet (?:helpen|beantwoorden)|\bik kan[^.!?]{0,30}\bniet (?:mee "
        r")?helpen|\b(?:przykro mi|przepraszam|niestety)[^.!?]{0,30}\bnie mogę|\büzgünüm[^.!?]{0,60}\w+(?:amam|emem|"
        r"amıyorum|emiyorum)\b|\b(?:извините|простите|к сожалению|прошу прощения|сожалею)[^.!?]{0,40}\bне (?:могу|в "
        r"состоянии)|\bя не могу (?:вам |тебе |с этим |это |на это )?(?:помочь|предоставить|выполнить|ответить|"
        r"создать)",
        _I,
    ),
    re.compile(
        r"(?:抱歉|对不起|不好意思|對不起)[^。！？]{0,16}(?:无法|不能|没办法|無法)|我(?:无法|不能|無法)(?:协助|帮助|"
        r"帮你|帮您|提供|回答|满足|完成|生成|为您|为你)|(?:申し訳|すみません|"
        r"ごめんなさい)[^。！？]{0,50}(?:できません|できかねます|いたしかねます|致しかねます)|お(?:手伝い|答え|"
        r"応え)(?:すること)?(?:は|が)?でき(?:ません|かねます)|죄송[^.!?]{0,60}(?:없습니다|어렵습니다|없어요)|도와드릴 "
        r"수 없|(?:آسف|عذر|أعتذر)[^.!؟]{0,40}(?:لا أستطيع|لا يمكنني)|لا (?:أستطيع|يمكنني) (?:مساعدتك|تقديم|الإجابة)|"
        r"(?:क्षमा|माफ़|माफ|खेद)[^।!?]{0,80}(?:नहीं|असमर्थ)"
    ),
)
_REFUSING = (
    *("can't", "cannot", "can not", "won't", "will not", "unable", "not able", "not programmed", "decline", "refuse"),
    *("request", "against my", "als ki", "als sprachmodell", "als künstliche", "en tant qu", "como ", "come "),
    *("как ", "作为"),
)
FLAT_REFUSALS: Final = Guarded(_REFUSING, *_FLAT)
REFUSALS: Final = Guarded(
    (
        *_REFUSING,
        *("not comfortable", "not allowed", "not permitted", "feel comfortable", "nicht", "ne peux", "ne suis"),
        *("ne puis", "impossible", "no puedo", "não posso", "non posso", "niet", "nie mogę", "üzgünüm", "не могу"),
        *("не в состоянии", "抱歉", "对不起", "不好意思", "對不起", "我无法", "我不能", "我無法", "できません"),
        *(
            "できかねます",
            "いたしかねます",
            "致しかねます",
            "죄송",
            "도와드릴",
            "لا ",
            "क्षमा",
            "माफ",
            "\u092e\u093e\u095e",
        ),
        "खेद",
    ),
    *_FLAT,
    *_HEDGED,
)
# A pivot from "I cannot" to what can be done.
PIVOT: Final = re.compile(
    r"\b(?:but|however|instead|that said|though|here (?:is|are)|here's|in general|generally|aber|jedoch|stattdessen|"
    r"allerdings|mais|cependant|toutefois|pero|sin embargo|mas|porém|ma|però|tuttavia|maar|ale|jednak|ama|ancak|но|"
    r"однако)\b|但|不过|然而|ただし|しかし|ですが|하지만|다만|لكن|लेकिन",
    _I,
)
# What follows a pivot in a refusal all the same: an offer to talk about something else, or another refusal.
OFFER: Final = re.compile(
    r"\b(?:happy to|glad to|feel free|let me know|something else|anything else|another (?:topic|question|request)|"
    r"other (?:questions?|topics?|requests?)|else I can|"
    rf"{_I_CANNOT}|gerne bei|etwas andere|anderen? (?:fragen|themen)|autre (?:chose|question|sujet)|d'autres|"
    r"otr[ao]s? (?:cosa|pregunta|tema|consulta)|outr[ao]s? (?:coisa|pergunta|assunto)|altr[oae] (?:domand|argoment|"
    r"richiest)|друг(?:ой|им|их|ими|ом) )|其他|別の|他の|다른|آخر|अन्य",
    _I,
)
# Asks in which words of refusal may be what was wanted.
ABOUT_REFUSAL: Final = re.compile(
    r"refus|declin|sorry|apolog|reject|turn(?:ing)? down|can'?t|cannot|unable|don'?t know|not know|unknown|"
    r"not (?:found|present|in the)|if you are (?:not sure|unsure)|ablehn|absag|entschuldig|désol|excus|rechaz|disculp|"
    r"recus|desculp|scus|rifiut|отказ|извин|拒绝|抱歉|道歉|不知道|断|謝|거절|사과|رفض|اعتذار",
    _I,
)
GROUNDED: Final = re.compile(
    r"\b(?:based on|according to|in|from) (?:the|this|your) (?:provided |given |supplied )?(?:context|text|"
    r"information|document|passage|data|article)|(?:text|document|context|passage|article|"
    r"information) (?:provided )?(?:does|do)(?:n't| not)|(?:more|additional|further) (?:context|information|details)|"
    r"real[- ]time|up[- ]to[- ]date|browse|attach|(?:didn't|did not|don't|do not) (?:see|include|provide|have)",
    _I,
)

# --- ends and loops -------------------------------------------------------------------------------------------------

# Lines that end without a stop by their nature: headings, list items, table rows, code, links, signatures.
NO_SENTENCE: Final = re.compile(r"\s*(?:#|[-*+•–] |\d+[.)] |\||>|```|<|https?://|\S+:\s*$|\*\*|[-=_*]{3,})")
SENTENCE_END: Final = re.compile(r"[.!?…:][\"')\]*_»”]*(?:\s|$)|[。！？…]")
RULED_LINE: Final = re.compile(r"[\s|:+=_*-]*$|\s*\|")
ASKS_REPETITION: Final = re.compile(
    r"repeat|\btimes\b|over and over|\bfill|\b\d{2,} (?:lines|copies|rows|digits|zeros|ones|characters)|wiederhol|"
    r"\bmal\b|répèt|\bfois\b|repit|repet|\bveces\b|\bvezes\b|ripet|\bvolte\b|повтор|\bраз\b|重复|重複|繰り返|遍|반복|"
    r"digits|pattern|chorus|refrain|ascii|palindrome|mantra",
    _I,
)
