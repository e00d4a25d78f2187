"""Limits for waits, all of them on one timer of the event loop."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class Until:
    """``with Until(limit): await …`` is ``async with asyncio.timeout_at(limit)`` at a fifth of its cost.

    asyncio makes a timer for every wait and takes it back. Here one is left standing for the wait that ends first, and
    set anew when it strikes: hardly any wait lasts that long.

    Args:
        limit: when the wait is to end, on the event loop's clock.
    """

    __slots__ = ("_cancelling", "_struck", "_task", "_waits", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._struck = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be made to wait no longer")
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        loop = asyncio.get_running_loop()
        self._waits = waits = _of_loops.get(loop) or _begun_in(loop)
        waits.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise TimeoutError where it was this limit that cancelled the wait."""
        self._waits.discard(self)
        if not self._struck:
            return
        if self._task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def strike(self) -> None:
        """End the wait: its time is up."""
        self._struck = True
        self._task.cancel()


class _Waits:
    """The waits that are under way in one event loop."""

    __slots__ = ("_at", "_loop", "_open", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[Until] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def add(self, wait: Until) -> None:
        self._open.add(wait)
        if wait.limit < self._at:
            self._arm(wait.limit)

    def discard(self, wait: Until) -> None:
        self._open.discard(wait)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._strike)

    def _strike(self) -> None:
        now = self._loop.time()
        for wait in [each for each in self._open if each.limit <= now]:
            self._open.discard(wait)
            wait.strike()
        self._timer, self._at = None, math.inf
        if self._open:
            self._arm(min(each.limit for each in self._open))


_of_loops: dict[asyncio.AbstractEventLoop, _Waits] = {}


def _begun_in(loop: asyncio.AbstractEventLoop) -> _Waits:
    """Begin to look after the waits of a loop, and forget loops that have ended."""
    for each in [known for known in _of_loops if known.is_closed()]:
        del _of_loops[each]
    waits = _of_loops[loop] = _Waits(loop)
    return waits
