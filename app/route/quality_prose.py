"""Checks of an answer's text: is it there, whole and long enough; is it an error, a refusal, a loop."""

from __future__ import annotations

import zlib
from collections import Counter
from string import digits
from typing import TYPE_CHECKING, Final

from app.route import quality_words as words

if TYPE_CHECKING:
    from app.route.quality_case import Case

# An answer to a limit this small was asked for in pieces (a label, a probe): its end is where the caller put it.
_SMALL_LIMIT_TOKENS = 64

# A stub is shorter than this share of the length asked for; models miss a length by half without being weak.
_STUB_SHARE = 0.2

_GENRE_CHARS = 600  # more than the floor of any genre
_AFTER = 20  # Chinese, Japanese and Korean put the verb behind
_LEAD = 120  # characters before a number that tell what it is for

_SHORT_CHARS = 500  # an error or a refusal and little else
_HEAD = 250
_QUOTES = ('"', "'", "\u201c", "\u00ab", "\u201e", "\u300c", ">")
_LONG_TEXT = 200  # below this an open end may be style; half of it in scripts without spaces
_WORDY_LINE = 8


def empty(case: Case) -> bool:
    """Tell whether a reader sees nothing: no text, or nothing but thinking. A tool call is something."""
    return not case.text and not case.tool_calls


def too_short(case: Case) -> bool:
    """Tell whether the answer is a stub: under a fifth of the length asked for, or under the floor of its genre.

    Only asks that name a length to be reached ("500 words", "3 paragraphs") or a long genre ("an essay on") count, and
    not for code nor where material is quoted (summaries, extraction, translation). A question back to the caller is an
    answer.
    """
    if (
        _cut_on_purpose(case)
        or case.kind == "code"
        or case.kind in words.SHORTENING_KINDS
        or case.text.endswith(("?", "？", "؟"))
    ):
        return False
    floor = max(
        _named_words(case.ask) * _STUB_SHARE, words.genre_floor(case.ask) if len(case.text) < _GENRE_CHARS else 0
    )
    return floor > 0 and count_words(case.text) < floor


def count_words(text: str) -> int:
    """Count words of the first 20,000 characters; two characters of a script without spaces count as one word."""
    text = text[:20_000]
    if text.isascii():
        return len(text.split())
    unspaced = sum(map(len, words.UNSPACED.findall(text)))
    return len(words.UNSPACED.sub(" ", text).split()) + unspaced // 2


def error_markers(case: Case) -> bool:
    """Tell whether the answer is itself an error message, a traceback or an error page, not words about one."""
    text = case.text.lstrip("*`# \n\"'")
    if text.startswith("<") and words.ERROR_PAGE.match(text[:2_000]):
        return "html" not in case.ask.lower()
    if words.TRACEBACK.match(text):
        return not words.ABOUT_ERRORS.search(case.ask) and _only_traceback(text)
    if len(text) > _SHORT_CHARS:
        return False
    found = words.SERVICE_ERROR.match(text)
    if found is not None:
        return found.group().lower() not in case.ask.lower() and not words.ABOUT_ERRORS.search(case.ask)
    return bool(words.PLAIN_ERROR.match(text)) and not words.ABOUT_ERRORS.search(case.ask)


def refusal(case: Case) -> bool:
    """Tell whether the answer refuses and does little else.

    A caution before real help is no refusal, nor is an honest "the text does not say", nor a refusal that was asked
    for: to be written, translated or given where something is unknown.
    """
    begun = case.text[:40]
    limit = _SHORT_CHARS if begun.isascii() or not words.UNSPACED.search(begun) else _SHORT_CHARS // 2
    if len(case.text) > limit or case.parts.blocks or case.kind == "translation":
        return False
    head = case.text[:_HEAD].replace("\u2019", "'")
    patterns = words.FLAT_REFUSALS if case.kind == "creative" else words.REFUSALS
    found = patterns.search(head)
    if (
        found is None
        or head.startswith(_QUOTES)
        or words.ABOUT_REFUSAL.search(f"{case.ask}\n{case.system}")
        or words.GROUNDED.search(case.text)
    ):
        return False
    return not _helps_after(case.text[found.end() :])


def cut_off(case: Case) -> bool:
    """Tell whether the answer stops before its end: by the token limit, inside a code fence, or in mid-sentence.

    The end of a sentence is only asked for where the backend gave no reason for stopping.
    """
    if case.finish_reason == "length":
        return not _cut_on_purpose(case)
    if case.tool_calls or case.response_format is not None:
        return False
    if case.parts.open_fence:
        return not any("`" in stop or "~" in stop for stop in case.stops)
    return not case.finish_reason and not case.stops and _open_ended(case.text)


def repetition(case: Case) -> bool:
    """Tell whether the answer got caught in a loop: one sign, one phrase or one line over and over.

    Asks for repetition are left alone, and so are tables and data in code blocks unless the loop runs to the end.
    """
    prose = case.parts.prose
    loops = _one_sign(case.text) or _loops_at_end(case.text) or _squeezes(prose) or _one_line(prose)
    return loops and not words.ASKS_REPETITION.search(case.ask)


def _cut_on_purpose(case: Case) -> bool:
    return case.token_limit is not None and case.token_limit <= _SMALL_LIMIT_TOKENS


def _named_words(ask: str) -> float:
    """Return the words that the ask wants at least, 0 where it names no length or wants something brief."""
    if ask.isascii() and not any(map(ask.__contains__, digits)):
        return 0
    lengths = [
        float(found["count"]) * words.unit_words(found["unit"])
        for found in words.LENGTH.finditer(ask)
        if _wants_length(ask[max(0, found.start() - _LEAD) : found.start()], ask[found.end() : found.end() + _AFTER])
    ]
    return max(lengths) if lengths and not words.BRIEF.search(ask) else 0


def _wants_length(lead: str, after: str) -> bool:
    sentence = words.SENTENCE_END.split(lead)[-1]
    return bool(words.PRODUCE.search(sentence + after)) and not words.CEILING.search(sentence)


def _only_traceback(text: str) -> bool:
    """Tell whether nothing follows the traceback's last line (``Name: message``) but a line or two of its message."""
    lines = text[:50_000].splitlines()
    flush = [
        line
        for line in lines
        if line.strip("`") and not line.startswith((" ", "\t", "Traceback", "During", "The above"))
    ]
    return sum(map(len, flush[1:])) <= _SHORT_CHARS // 4


def _helps_after(rest: str) -> bool:
    """Tell whether real help follows a refusal: a pivot and then more than an offer to talk about something else."""
    pivot = words.PIVOT.search(rest)
    if pivot is None:
        return False
    helped = rest[pivot.end() :]
    return len(helped) >= _SHORT_CHARS // 10 and not words.OFFER.search(helped[:120])


def _open_ended(text: str) -> bool:
    """Tell whether text breaks off in the middle of a sentence.

    Only where sentences end in stops: within the last line, or before it, where that line is a paragraph of its own.
    Lines of lists and verse do neither.
    """
    end = text[-2_000:]
    before, _, last = end.rpartition("\n")
    if words.NO_SENTENCE.match(last) or not (words.SENTENCE_END.search(last[:-1]) or _ends_paragraph(before)):
        return False
    if words.UNSPACED.match(last[-1:]):
        return len(end) >= _LONG_TEXT // 2 and len(last) >= 2 * _WORDY_LINE
    return len(end) >= _LONG_TEXT and len(last.split()) >= _WORDY_LINE and (last[-1].isalpha() or last[-1] in ",;-")


def _ends_paragraph(before: str) -> bool:
    return before.endswith("\n") and bool(words.SENTENCE_END.search(before.rstrip()[-3:]))


_TAIL = 6_000
_RUN = 40
# Rules and blanks to be filled in are drawn with these signs on purpose: their runs must be longer.
_RULERS: Final = frozenset("_=*.~#+|-\u2500\u2501\u2550")
_RULER_RUN = 400


def _one_sign(text: str) -> bool:
    """Tell whether one sign makes up half of the text (of its end, if it is long), and stands there in a long run.

    A sign of which there is so much stands at one of four places all but surely, at the last if the text ends in it.
    """
    tail = text[-_TAIL:]
    size = len(tail)
    for quarter in (1, 2, 3, 4) if size >= _RUN else ():
        sign = tail[size * quarter // 4 - 1]
        run = _RULER_RUN if sign in _RULERS else _RUN
        if 2 * tail.count(sign) >= size and not sign.isspace() and sign * run in tail:
            return True
    return False


_PROBE = 16
_LOOP_ROUNDS = 5
_LOOP_CHARS = 240


def _loops_at_end(text: str) -> bool:
    """Tell whether the text ends in at least five rounds of one phrase, 240 characters in all.

    The period is the distance between the text's last 16 characters and where they stood before; comparing the tail
    with itself one period on is then one pass.
    """
    tail = text[-_TAIL:]
    if tail.endswith(("```", "~~~", "|")):
        return False
    before = tail.rfind(tail[-_PROBE:], 0, len(tail) - 1)
    period = len(tail) - _PROBE - before
    span = max(_LOOP_CHARS, _LOOP_ROUNDS * period)
    if before < 0 or span > len(tail) or not any(map(str.isalnum, tail[-period:])):
        return False
    return tail[-span:-period] == tail[-span + period :]


_SQUEEZE_CHARS = 600
_SQUEEZE_RATIO = 7  # prose 1.5-3, verse with a refrain up to 4, a loop 10 and more


def _squeezes(prose: str) -> bool:
    """Tell whether the prose deflates far better than any prose that says something (start and end looked at alike)."""
    if prose.isascii() and len(prose) < _SQUEEZE_CHARS:
        return False
    return any(_ratio(part) >= _SQUEEZE_RATIO <= _ratio(_unruled(part)) for part in {prose[:_TAIL], prose[-_TAIL:]})


def _unruled(part: str) -> str:
    return "\n".join(line for line in part.splitlines() if not words.RULED_LINE.match(line))


def _ratio(part: str) -> float:
    data = part.encode(errors="replace")
    return len(data) / len(zlib.compress(data, 1)) if len(data) >= _SQUEEZE_CHARS else 0


_ITEM_SIGNS = (
    " \t0123456789.):-*#|=_+"  # what numbered lines and table rows begin with; a row of empty cells is nothing
)
_SAME_LINES = 6
_SAME_SHORT_LINES = 20
_LINE_CHARS = 20


def _one_line(prose: str) -> bool:
    """Tell whether one line of prose stands there six times or more (20, if short) and makes up half of all lines."""
    lines = prose[-_TAIL:].splitlines()
    if len(lines) < _SAME_LINES:
        return False
    stripped = (line.lstrip(_ITEM_SIGNS).rstrip() for line in lines)
    lines = [line for line in stripped if len(line) > 1]
    if len(lines) < _SAME_LINES:
        return False
    line, count = Counter(lines).most_common(1)[0]
    return 2 * count >= len(lines) and count >= (_SAME_LINES if len(line) >= _LINE_CHARS else _SAME_SHORT_LINES)
