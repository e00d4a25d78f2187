"""Giving way: what runs beside the calls waits for room, and ends at once where a caller would have to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from app.guard.lanes import Lane

T = TypeVar("T")
_LATE_S = 0.025
"""A loop that comes back so late has calls to serve."""
_LOOK_S = 0.02
_PATIENCE_S = 5.0
_ONE_BY_ONE = frozenset({"mlx", "ollama"})
"""Dialects of local models, which share one processor: a second call there makes the first one slower."""


class GaveWay(Exception):  # noqa: N818 - no error: callers come first
    """There was no room, or callers needed it."""


async def room(lanes: Sequence[Lane]) -> None:
    """Wait a while until these lanes have room to spare and the process has time.

    Raises:
        GaveWay: they have not.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while True:
        before = loop.time()
        await asyncio.sleep(_LOOK_S)
        if loop.time() - before < _LOOK_S + _LATE_S and all(_has_room(lane) for lane in lanes):
            return
        if loop.time() >= until:
            raise GaveWay


async def giving_way(lanes: Sequence[Lane], work: Coroutine[Any, Any, T]) -> T:
    """Do some work; end it where somebody stands in line for one of these lanes.

    Raises:
        GaveWay: it was ended.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_S)
            if not task.done() and any(_is_wanted(lane) for lane in lanes):
                raise GaveWay
        return task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _has_room(lane: Lane) -> bool:
    if lane.config.local and lane.config.dialect in _ONE_BY_ONE:
        return lane.gate.in_use == 0
    return not lane.gate.waiting and lane.gate.in_use <= lane.gate.slots // 2


def _is_wanted(lane: Lane) -> bool:
    if lane.config.local and lane.config.dialect in _ONE_BY_ONE:
        return lane.gate.in_use > 1
    return lane.gate.waiting > 0
