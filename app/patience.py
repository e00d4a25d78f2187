"""A limit for each of many waits in a row, by one timer for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class Patience:
    """``with patience.until(limit): await …`` is ``async with asyncio.timeout_at(limit)`` at a fifth of its cost.

    asyncio makes a timer for every wait and takes it back. Here one is left standing: when it strikes and the waits
    have gone on, it is set anew for the limit of the wait that is under way.
    """

    __slots__ = ("_cancelling", "_limit", "_loop", "_struck", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._struck = False

    def until(self, limit: float) -> Self:
        """Set the limit of the next wait, on the event loop's clock."""
        self._limit = limit
        return self

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self._struck = False
        timer = self._timer
        if timer is None or timer.when() > self._limit:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(self._limit, self._strike)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise TimeoutError where it was this limit that cancelled the wait."""
        task, self._task = self._task, None
        if not self._struck or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _strike(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._limit:
            self._timer = self._loop.call_at(self._limit, self._strike)
            return
        self._struck = True
        self._task.cancel()

    def end(self) -> None:
        """Take the timer back: no more waits are to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
