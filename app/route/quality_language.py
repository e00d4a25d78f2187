"""Which language a text is in, by script and by function words, and whether an answer is in the wrong one.

Made for one question, "is this answer surely in another language than its ask", so it says None far sooner than a
language identifier would. Function words: the commonest words of a language that its neighbours do not share make up
10-40 % of running text.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from app.route.quality_words import SHORTENING_KINDS

if TYPE_CHECKING:
    from app.route.quality_case import Case

_WINDOW = 800
_TAIL = 300

_STOP_WORDS: Final[dict[str, str]] = {
    "en": "the and of to is that it you for with are this be have from which can what how when your will would their "
    "there they its has not does should about into these by if or but we was were why who please explain",
    "de": "der die das und ist nicht ein eine einen dem den des mit auf für sich von zu auch wird werden als wie sind "
    "oder aber bei nach über durch kann wenn dass ich sie wir im am zum zur was warum welche bitte in an so es",
    "fr": "le la les des et est un une dans que qui pour pas sur avec au aux ce cette sont plus par vous nous il elle "
    "être ou mais comme du se son ses leur quelle quel comment pourquoi ne de en on a je me tu y",
    "es": "el la los las de y que en un una es por con para no se del al lo como más pero sus su este esta son está "
    "puede cuando muy también qué cuál cómo fue ser hay o a me si tu le",
    "pt": "o os as de e que em um uma é por com para não se do da dos das no na ao como mais mas são está pode quando "
    "muito também foi ser você qual quais isso a à pelo pela ou me seu sua",
    "it": "il lo la gli le di e che in un una è per con non si del della dei delle al alla come più ma sono questo "
    "questa può anche quando nel nella da dal perché qual cosa essere ha o a i mi tu se",
    "nl": "de het een en van is dat niet in op te met voor zijn aan er ook als maar door bij wordt worden naar deze "
    "dit je u kan over om of uit wat hoe waarom welke we was",
    "scand": "og och det er är en et ett som på til till med av for för den ikke inte har att at om fra från vi kan de "
    "hva vad hvordan hur hvorfor varför jeg jag eller men ved så blir også også du i",
    "pl": "i w na z do nie się jest to że o jak co przez dla od po ale są tym który która które oraz tego być może "
    "dlaczego czy za jego ich a we do",
    "cs": "a v na je se že to s z do ne jako pro by co jak ale jsou který která které nebo také po od při být proč aby "
    "o i za",
    "ro": "și în de la cu pe nu este un o care pentru mai din că sunt sau al ale prin dar ca fi dacă cum ce a se",
    "tr": "ve bir bu için ile de da ne olarak çok daha gibi olan var kadar sonra değil ama en veya nasıl neden nedir",
    "id": "yang dan di untuk dengan ini itu dari pada adalah tidak dalam akan atau juga ke oleh bisa dapat sebagai "
    "apa bagaimana karena",
    "fi": "ja on ei se että oli ovat mutta kun myös tai niin kuin voi joka jos ole mitä miten miksi hän",
    "hu": "a az és hogy nem is egy van ez meg de mint csak azt vagy már ki mi lehet volt ha mert hogyan miért",
    "vi": "và của là không được các có cho một trong người với này những để khi đã từ như thế nào gì tôi bạn",
}
_LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {}
for _language, _words in _STOP_WORDS.items():
    for _word in {word for word in _words.split() if len(word) > 1}:  # single letters also are variables and list marks
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)

# What a word adds to each language, as one number of so many fields: adding up the words of a text is then one sum.
_LANGUAGES: Final = tuple(_STOP_WORDS)
_WORD_UNITS: Final = math.lcm(*range(1, len(_LANGUAGES) + 1))
"""What a word adds to its languages, shared out evenly among them."""
_FIELDS: Final = struct.Struct(f"<{len(_LANGUAGES)}I{len(_LANGUAGES)}H")
"""Of each language the units, then of each the number of its words: texts of 5,000 words of two letters fit in."""


@cache
def _added(languages: tuple[str, ...]) -> int:
    units = [_WORD_UNITS // len(languages) if each in languages else 0 for each in _LANGUAGES]
    return int.from_bytes(_FIELDS.pack(*units, *map(bool, units)), "little")


_ADDED: Final = {word: _added(languages) for word, languages in _LANGUAGES_OF.items()}
_OWN: Final = {
    name: frozenset(word.encode() for word, languages in _LANGUAGES_OF.items() if languages == (name,))
    for name in _LANGUAGES
}
"""Of each language the words that no other one shares, in bytes."""
_ASCII_ADDED: Final = {word.encode(): added for word, added in _ADDED.items() if word.isascii()}
_ASCII_LETTERS: Final = bytes(byte | 32 if bytes([byte]).isalpha() else 32 for byte in range(256))
"""Small letters, and a blank for all else."""

_LATIN_WORD = re.compile(r"[a-z\u00df-\u024f\u1ea0-\u1eff]+")
_SCRIPTS: Final = ("greek", "cyrillic", "hebrew", "arabic", "devanagari", "thai", "kana", "han", "hangul")
_OTHER_SCRIPT = re.compile(
    r"([\u0370-\u03ff]+)|([\u0400-\u052f]+)|([\u0590-\u05ff]+)|([\u0600-\u06ff]+)|([\u0900-\u097f]+)|"
    r"([\u0e00-\u0e7f]+)|([\u3040-\u30ff]+)|([\u3400-\u9fff]+)|([\uac00-\ud7af]+)"
)
# A sign of these scripts carries about as much as two and a half Latin letters.
_DENSE: Final = frozenset({"kana", "han", "hangul"})
_DENSITY = 2.5
_MIN_LETTERS = 12
_MIN_ANSWER_LETTERS = 40
_SHARE = 0.7
_KANA_SHARE = 0.1

_NOT_PROSE = re.compile(r"`[^`\n]{0,200}`|https?://\S+|\$\$?[^$\n]{1,200}\$|[\"“«「][^\"”»」\n]{1,300}[\"”»」]")

_NOT_PROSE_SIGNS: Final = ("`", "http", "$", '"', "“", "«", "「")
"""One of them is in every text in which that pattern is found."""

# Words by which an ask (or its system text) chooses a language itself, or asks about one.
_NAMES_LANGUAGE = re.compile(
    r"translat|übersetz|tradu[cirz]|tradui|перев[еоё]|翻译|翻譯|翻訳|訳|번역|ترجم|अनुवाद|tłumacz|çevir|vertaal|\blanguage|"
    r"sprache|\blangue|idioma|lingua|язык|语言|語|언어|multiling|biling|\boriginal|\b(?:english|german|french|spanish|"
    r"italian|portugu|brazil|dutch|swed|norw|danish|dansk|polish|czech|roman|turk|indones|finn|hungar|vietnam|greek|"
    r"russia|ukrain|hebrew|arabic|hindi|thai|japan|chinese|mandarin|cantonese|korea|latin|urdu|persian|farsi|englis|"
    r"deutsch|französ|spanisch|italienisch|anglais|allemand|français|espagnol|italien|inglés|alemán|francés|español|"
    r"inglês|alemão|francês|espanhol|inglese|tedesco|francese|spagnolo|engels|duits|frans|spaans|angiel|niemiec|"
    r"ingiliz|alman|fransız)|англ|немец|франц|испан|русск|китай|япон|итал|украин|英[语語文]|中文|汉语|漢語|日[语語文]|日本語|法[语語]|"
    r"德[语語]|俄|韩[语文]|영어|한국어|일본어|중국어|ไทย|أنجلي|إنجليز|عرب",
    re.IGNORECASE,
)

_ENOUGH_HITS = 3
_ENOUGH_ANSWER_HITS = 6
_HIT_SHARE = 0.12
_LEAD, _LEAD_OVER = 8, 5
"""The language found leads by eight to five."""
_CYRILLIC: Final = frozenset({"ru", "uk", "cyrillic"})
_GROUPS: Final[dict[str, str]] = {"kana": "cjk", "han": "cjk"}


class _Reading(NamedTuple):
    """What was counted in a text.

    Attributes:
        language: its language where that is sure, else None.
        script: the script that it is in, else an empty string; ``cjk`` for kana and Han.
        scripts: every script other than Latin that it holds a sign of.
        latin: its words in Latin letters.
    """

    language: str | None
    script: str
    scripts: frozenset[str]
    latin: list[str] | list[bytes]

    def words(self) -> frozenset[str]:
        """Return the function words found."""
        latin = (word if isinstance(word, str) else word.decode() for word in self.latin)
        return frozenset(latin) & _LANGUAGES_OF.keys()


def wrong_language(case: Case) -> bool:
    """Tell whether the answer, or its end, is surely in another language than everything that was asked.

    Never where the ask is a translation, names or speaks of a language, or holds words of the answer's own. Earlier
    turns count as asks; so does a system text, but for English ones, which stand before asks in every language.
    """
    if not case.ask or case.kind == "translation":
        return False
    suspects = _suspects(case.parts.prose)
    if not suspects or _speaks(case.ask, suspects):
        return False
    newest = _read(case.ask, _MIN_LETTERS, _ENOUGH_HITS)
    foreign = [answer for answer in suspects if _differs(answer, newest) and not _akin(answer, newest)]
    return bool(foreign) and not _excused(case, foreign)


def _suspects(prose: str) -> list[_Reading]:
    """Read the answer's beginning and, where it holds other scripts than Latin, its end: models drift into them."""
    begin, end = prose[: 2 * _WINDOW], prose[-_TAIL:]
    readings = [_read(_prose(begin)[:_WINDOW], _MIN_ANSWER_LETTERS, _ENOUGH_ANSWER_HITS)]
    if not end.isascii():
        drifted = _read(_prose(end), _MIN_ANSWER_LETTERS, _ENOUGH_ANSWER_HITS)
        readings += [drifted] if drifted.script != "latin" else []
    return [reading for reading in readings if reading.language]


def _speaks(ask: str, suspects: list[_Reading]) -> bool:
    """Tell whether an ask in ASCII has words of their own of all the languages: a short way to :func:`_akin`."""
    if not ask.isascii() or not all(answer.script == "latin" for answer in suspects):
        return False
    words = ask.encode("ascii").translate(_ASCII_LETTERS).split()
    return not any(_OWN[str(answer.language)].isdisjoint(words) for answer in suspects)


def _prose(text: str) -> str:
    """Return the text without code, addresses, formulas and what it quotes."""
    return _NOT_PROSE.sub(" ", text) if any(map(text.__contains__, _NOT_PROSE_SIGNS)) else text


def _excused(case: Case, foreign: list[_Reading]) -> bool:
    """Tell whether the ask names a language, its material may hide its own, or other turns were in the answer's."""
    if case.kind in SHORTENING_KINDS and _read(_instruction(case.ask), _MIN_LETTERS, _ENOUGH_HITS).language is None:
        return True
    if any(map(_NAMES_LANGUAGE.search, (case.ask, case.system, *case.context))):
        return True
    others = [_read(text, _MIN_LETTERS, _ENOUGH_HITS) for text in case.context]
    rules = _read(case.system, _MIN_LETTERS, _ENOUGH_HITS)
    others += [rules] if rules.language != "en" else []
    return all(any(_akin(answer, other) for other in others) for answer in foreign)


def _instruction(ask: str) -> str:
    """Return the ask's first or last line, the shorter: the other is likely the material that it brings."""
    lines = ask.strip().splitlines() or [""]
    return min(lines[0], lines[-1], key=len)


def detect(text: str) -> str | None:
    """Return a language code (``scand`` for Danish, Norwegian and Swedish), or None unless it is sure."""
    return _read(text[:_WINDOW], _MIN_ANSWER_LETTERS, _ENOUGH_ANSWER_HITS).language


def _differs(answer: _Reading, ask: _Reading) -> bool:
    """Tell whether the ask's language is sure, or it is Latin text, no mere name, and the answer in another script."""
    return ask.language is not None or bool(ask.script == "latin" != answer.script and ask.words())


def _akin(answer: _Reading, ask: _Reading) -> bool:
    if answer.language == ask.language or (
        "cyrillic" in {answer.language, ask.language} and answer.script == ask.script
    ):
        return True
    if answer.script == "latin":
        return any(_telling(word, str(answer.language), ask.language) for word in ask.words())
    return answer.script != ask.script and answer.script in ask.scripts


def _telling(word: str, language: str, instead: str | None) -> bool:
    """Tell whether a function word speaks for a language and not for the one that the text is in."""
    languages = _LANGUAGES_OF[word]
    return language in languages and instead not in languages


def _read(text: str, min_letters: int, enough_hits: int) -> _Reading:
    if text.isascii():
        return _read_ascii(text, min_letters, enough_hits)
    text = text.lower()
    words = _LATIN_WORD.findall(text)
    latin = len("".join(words))
    signs = _signs(text)
    weights = {name: count * (_DENSITY if name in _DENSE else 1) for name, count in signs.items()}
    total = latin + sum(weights.values())
    scripts = frozenset(_GROUPS.get(name, name) for name in signs)
    script = _main_script(latin, weights, total) if total >= min_letters else ""
    if script == "latin":
        language = _latin_language(sum(filter(None, map(_ADDED.get, words))), len(words), enough_hits)
    else:
        language = _script_language(script, signs, text)
    return _Reading(language, script, scripts, words)


def _read_ascii(text: str, min_letters: int, enough_hits: int) -> _Reading:
    """Do the same for ASCII, where bytes are letters."""
    letters = text.encode("ascii").translate(_ASCII_LETTERS)
    words = letters.split()
    if len(letters) - letters.count(b" ") < max(min_letters, 1):
        return _Reading(None, "", frozenset(), words)
    added = sum(filter(None, map(_ASCII_ADDED.get, words)))
    return _Reading(_latin_language(added, len(words), enough_hits), "latin", frozenset(), words)


def _signs(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for found in _OTHER_SCRIPT.finditer(text):
        counts[_SCRIPTS[(found.lastindex or 1) - 1]] += found.end() - found.start()
    return counts


def _main_script(latin: int, weights: dict[str, float], total: float) -> str:
    groups: defaultdict[str, float] = defaultdict(float, latin=float(latin))
    for name, weight in weights.items():
        groups[_GROUPS.get(name, name)] += weight
    name, weight = max(groups.items(), key=lambda pair: pair[1])
    return name if weight >= _SHARE * total else ""


def _script_language(script: str, signs: Counter[str], text: str) -> str | None:
    if script == "cjk":
        return "ja" if signs["kana"] >= _KANA_SHARE * (signs["kana"] + signs["han"]) else "zh"
    if script == "cyrillic":
        # Letters that only one of the two has; other Cyrillic languages are left untold.
        russian, ukrainian = (sum(map(text.count, letters)) for letters in ("ыэё", "іїєґ"))
        return "ru" if russian and not ukrainian else "uk" if ukrainian and not russian else "cyrillic"
    return script or None


def _latin_language(added: int, words: int, enough_hits: int) -> str | None:
    """Return the language with by far the most function words; one that several share counts for each in part.

    Args:
        added: what the words add to the languages, all together.
        words: how many there are.
        enough_hits: function words that a text needs at least.
    """
    if not added:
        return None
    fields = _FIELDS.unpack(added.to_bytes(_FIELDS.size, "little"))
    scores = fields[: len(_LANGUAGES)]
    second, first = sorted(scores)[-2:]
    best = scores.index(first)
    hits = fields[len(_LANGUAGES) + best]
    enough = hits >= max(enough_hits, _HIT_SHARE * words)
    return _LANGUAGES[best] if enough and _LEAD_OVER * first >= _LEAD * second else None
