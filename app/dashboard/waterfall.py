"""Where a call's time went, as bars one under the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAITING = frozenset({"queue", "connect", "retry", "receive"})
_MODEL = frozenset({"first_token", "answer", "stream", "polish", "load", "prompt", "decode", "escalate", "judge"})


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage: where it begins and how long it is, in percent of the whole.

    Attributes:
        kind: ``own`` time of Sluice, ``wait`` for a slot, a connection or the caller, ``model`` at work.
    """

    name: str
    ms: float
    start: float
    width: float
    kind: str


def waterfall(stages: Mapping[str, float]) -> list[Bar]:
    """Return the stages in order. They are laps: they follow each other and add up to the call's time."""
    total = sum(stages.values())
    bars, at = [], 0.0
    for name, ms in stages.items():
        bars.append(Bar(name, ms, _percent(at, total), _percent(ms, total), _kind(name)))
        at += ms
    return bars


def _percent(part: float, whole: float) -> float:
    return round(100 * (part / whole), 2) if whole > 0 else 0.0


def _kind(name: str) -> str:
    return "wait" if name in _WAITING else "model" if name in _MODEL else "own"
