"""The quality check of an answer: which faults of a closed set it has, and which of two answers is served.

Pure: plain values in, fault names out; no I/O, no clock. Each check is a function of its own with the fault's name,
tuned against false alarms: in doubt an answer is good. Time is bounded whatever the length (clipped windows, linear
scans).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from app.route.quality_case import Case, read_case, split
from app.route.quality_code import broken_code, no_code_block
from app.route.quality_language import wrong_language
from app.route.quality_prose import cut_off, empty, error_markers, refusal, repetition, too_short
from app.route.quality_schema import schema_miss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Checks that hold for every call, tools and schemas included.
_ALWAYS: Final[dict[str, Callable[[Case], bool]]] = {
    "empty": empty,
    "cut_off": cut_off,
    "schema_miss": schema_miss,
}
# Checks of free text.
_FREE: Final[dict[str, Callable[[Case], bool]]] = {
    "error_markers": error_markers,
    "refusal": refusal,
    "repetition": repetition,
    "wrong_language": wrong_language,
    "broken_code": broken_code,
    "no_code_block": no_code_block,
    "too_short": too_short,
}

# 3: of no use to the caller; 2: a part is of use; 1: thin, but right as far as it goes.
SEVERITY: Final[dict[str, int]] = {
    "empty": 3,
    "error_markers": 3,
    "refusal": 3,
    "schema_miss": 3,
    "cut_off": 2,
    "repetition": 2,
    "wrong_language": 2,
    "broken_code": 2,
    "no_code_block": 2,
    "too_short": 1,
}
FAULTS: Final[tuple[str, ...]] = tuple(SEVERITY)


def inspect(
    body: Mapping[str, Any],
    text: str,
    *,
    kind: str | None,
    finish_reason: str | None,
    tool_calls: bool = False,
) -> tuple[str, ...]:
    """Return the names of the answer's faults, each from FAULTS, worst first; empty for a good answer.

    Calls that offer tools or ask for JSON are judged by ``empty``, ``cut_off`` and ``schema_miss`` alone.

    Args:
        body: the chat body; fields of a wrong type count as absent.
        text: the answer's content, whole.
        kind: the verdict's kind, e.g. ``code``; None where nothing judged the ask.
        finish_reason: as the backend gave it.
        tool_calls: whether the answer calls tools.
    """
    case = read_case(body, text, kind=kind, finish_reason=finish_reason, tool_calls=tool_calls)
    found = [name for name, check in _ALWAYS.items() if check(case)]
    if "empty" not in found and not (case.tools or case.tool_calls or case.response_format):
        found += [name for name, check in _FREE.items() if check(case)]
    return tuple([name for name in FAULTS if name in found]) if found else ()


def better(draft_faults: Iterable[str], polished_faults: Iterable[str]) -> bool:
    """Tell whether the polished answer is to be served: its worst fault is lesser, or, if equal, its sum is.

    A tie goes to the draft: the polish has mended nothing that can be seen, and the draft is what the planned target
    said. A name outside FAULTS counts as severity 1.
    """
    return _weight(polished_faults) < _weight(draft_faults)


def has_code_block(text: str) -> bool:
    """Tell whether the text holds a fenced code block with something in it."""
    return any(block.code.strip() for block in split(text).blocks)


def _weight(faults: Iterable[str]) -> tuple[int, int]:
    severities = [SEVERITY.get(fault, 1) for fault in faults]
    return max(severities, default=0), sum(severities)
