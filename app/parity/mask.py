"""Taking out of an answer what speaks to a judge instead of to the reader. Pure.

A list of phrases is never complete: this one stops the plain kinds of "choose me" and no more. What holds whatever an
answer says is the form of the question (app.parity.judge): fences that no answer knows, labels drawn for each question,
both orders, and a verdict from a closed set.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

REMOVED: Final = "[removed]"
_CHOOSE: Final = r"(?:choose|pick|prefer|select|favou?r|vote for|rate|rank|score|grade|declare|award|give)"
_ANSWER: Final = r"(?:answer|response|reply|output)"
_BEST: Final = r"(?:best|better|superior|wins?|winner|winning|preferred|perfect|full marks|highest|the correct one)"
_PLACE: Final = r"(?:first|second|last|previous|whichever)"
_JUDGE: Final = r"(?:judge|evaluator|grader|rater|assessor|referee)s?"
_RULES: Final = r"(?:instructions?|prompts?|rules|criteria|rubrics?|guidelines)"
_PHRASES: Final = (
    rf"\b{_CHOOSE}\b[^.!?\n]{{0,30}}\b(?:this|my|the present)\s+{_ANSWER}\b",
    rf"\b{_CHOOSE}\s+(?:me|mine)\b",
    rf"\b(?:this|my|the present)\s+{_ANSWER}\b[^.!?\n]{{0,50}}\b{_BEST}\b",
    rf"\bthe\s+other\s+{_ANSWER}\b|\b{_ANSWER}\s+(?:[ab12]|one|two)\b[^.!?\n]{{0,40}}\b{_BEST}\b",
    rf"\b{_PLACE}\s+{_ANSWER}\b[^.!?\n]{{0,40}}\b(?:{_BEST}|correct|choose|comes)\b",
    rf"\b{_CHOOSE}\s+the\s+(?:{_PLACE}\s+{_ANSWER}|{_ANSWER}\s+(?:above|before|below))\b",
    rf"\b(?:dear|attention|note to|message to|instructions? (?:to|for)|as (?:the|an?))[\s:]+(?:the\s+)?{_JUDGE}\b",
    rf"\b{_JUDGE}\s*[:,]|\b{_JUDGE}\b[^.!?\n]{{0,20}}\b(?:must|should|has to|have to|is required|are required)\b",
    r"\b(?:verdict|final choice)\b[\"'`*_]*\s*(?:[:=>]|is\b|must|should)",
    rf"\b(?:ignore|disregard|forget|override)\b[^.!?\n]{{0,40}}\b{_RULES}\b|\bnew\s+{_RULES}\s*:",
    r"\b(?:выбер|предпочт|оцен)(?:и|ите)\b[^.!?\n]{0,30}\b(?:этот|мой|меня)\b|\bигнорируй(?:те)?\b",  # noqa: RUF001
    r"\b(?:wähle|wählen|bevorzuge|bevorzugen|bewerte|bewerten)\b[^.!?\n]{0,30}\b(?:diese|meine|mich)\b",
    r"\b(?:choisis|choisissez|préfère|préférez|notez)\b[^.!?\n]{0,30}\b(?:cette|ma|moi)\b",
    r"\b(?:elige|elija|escoge|prefiere|prefiera)\b[^.!?\n]{0,30}\b(?:esta|mi|me)\b",
    r"(?:选择|评为|判定)[^。\n]{0,8}(?:这个|本|此|我)[^。\n]{0,4}(?:回答|答案)|评委|评判者",
)
_SPEAKS: Final = re.compile("|".join(f"(?:{each})" for each in _PHRASES), re.IGNORECASE)
_ENDS: Final = re.compile(r"[.!?](?=[\s\"')\]*_]|$)|[\n。]")


class Masked(NamedTuple):
    """An answer without what speaks to a judge, and how many places that were."""

    text: str
    removed: int


def masked(text: str) -> Masked:
    """Take out every sentence, or line, in which an answer speaks to a judge."""
    kept: list[str] = []
    at = removed = 0
    for found in _SPEAKS.finditer(text):
        if found.start() < at:
            continue
        start = max((end.end() for end in _ENDS.finditer(text, at, found.start())), default=at)
        after = _ENDS.search(text, found.end())
        kept += [text[at:start], REMOVED]
        at, removed = (after.end() if after else len(text)), removed + 1
    return Masked("".join((*kept, text[at:])), removed)
