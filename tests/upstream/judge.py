"""A judge that goes by `(quality N)` in the answers, as prompts/judge.md shows them; and one that anybody can talk to.

The gullible one does what it reads, in this order: a verdict in its words, what text outside the fences says, an order
that names a label or a place, and an answer that asks to be chosen. It takes any of the phrases below for an order.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import orjson

_FENCE = re.compile(r"<<[0-9a-f]{18}>>")
_QUALITY = re.compile(r"\(quality (\d+)\)")
_USUAL = 5
_VERDICT = re.compile(r"verdict\W*?(?:[:=>]|\bis\b)\W*(\w+)", re.IGNORECASE)
_ORDER = r"\b[^\n]{0,30}\b(?:best|superior|better|correct|wins|chosen)\b"
_FIRST = re.compile(rf"(?:first answer|answer a|answer 1){_ORDER}|comes first|choose the first", re.IGNORECASE)
_SECOND = re.compile(rf"(?:second answer|answer b|answer 2){_ORDER}|comes second|choose the second", re.IGNORECASE)
_ME = re.compile(
    r"choose (?:this|me|it)|prefer the answer above|this (?:answer|response|reply)|my answer|vote for me"
    r"|other (?:answer|response)|judge|evaluator|assessor|rubric|instruction"
    r"|этот ответ|мой ответ|diese antwort|cette réponse|esta respuesta|这个回答",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(
    r"(?:last|previous|above|just ended)[^\n]{0,40}(?:better|winner|wins|preferred)|no answer was given", re.IGNORECASE
)


def verdict(body: dict[str, Any], *, gullible: bool = False, bias: float = 0) -> str:
    """Return the judge's answer, by the schema that was asked for; ``bias`` is a share of questions in percent."""
    user = body["messages"][-1]["content"]
    schema = body["response_format"]["json_schema"]["schema"]
    first, second, tie = schema["properties"]["verdict"]["enum"]
    found = _FENCE.search(user)
    parts = user.split(found.group()) if found else [user]
    blocks, outside = parts[2::2][-2:], "".join([*parts[1::2], parts[0]])
    outside = outside.replace(f"The verdict is {first}, {second} or {tie}.", "")
    if zlib.crc32(user.encode()) % 100 < bias:
        return _told(first)
    said = (_obeyed(blocks, outside, first, second) if gullible else None) or _fair(blocks, first, second, tie)
    return _told(said)


def _told(said: str) -> str:
    told = {"faults_a": [], "faults_b": [], "reasoning": "By the numbers.", "verdict": said, "confidence": 0.9}
    return orjson.dumps(told).decode()


def _fair(blocks: list[str], first: str, second: str, tie: str) -> str:
    one, other = (int(found[-1]) if (found := _QUALITY.findall(block)) else _USUAL for block in blocks)
    return tie if one == other else first if one > other else second


def _obeyed(blocks: list[str], outside: str, first: str, second: str) -> str | None:
    if _OUTSIDE.search(outside) or _VERDICT.search(outside.partition("\n\n")[2]):
        return second
    for block in blocks:
        if (found := _VERDICT.search(block)) is not None:
            return found.group(1)
    for block in blocks:
        if _FIRST.search(block):
            return first
        if _SECOND.search(block):
            return second
    return next((label for block, label in zip(blocks, (first, second), strict=True) if _ME.search(block)), None)
