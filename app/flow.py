"""Streams that flow, and calls that give way to their events."""

from __future__ import annotations

import asyncio
from collections import deque

ALONE_S = 0.002
"""A stream's events come one by one while there is so much between them; those that come sooner go on together."""
_FLOWING_S = 0.05
"""Streams flow while their last event that came alone is no older than this."""
_MEMORY = 64
"""About how many events are remembered as having come alone or not."""


class Flow:
    """Has the calls' work done piece by piece, one in each round of the event loop, while streams flow event by event.

    Calls that come at once are work of many milliseconds, and every stream's next event would come after all of it.
    Streams whose events come faster than they are relayed one by one lose nothing by that, and while there are none the
    same work costs less if it is done for many calls in a row.
    """

    def __init__(self) -> None:
        self._first: deque[asyncio.Future[None]] = deque()
        self._later: deque[asyncio.Future[None]] = deque()
        self._taken = self._odd = False
        self._alone = 0.0
        self._last_s = -_FLOWING_S

    def relayed(self, now_s: float, *, alone: bool) -> None:
        """Note that a stream's event went out, by itself or with others, on the event loop's clock."""
        if alone:
            self._last_s = now_s
        self._alone += (alone - self._alone) / _MEMORY

    async def give_way(self, *, later: bool = False) -> bool:
        """Return when the next piece of a call's work may be done, and whether that was waited for.

        Args:
            later: nobody waits for what it does: it comes after the others.
        """
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = self._flows(loop)
            if self._taken:
                loop.call_soon(self._next, loop)
            return False
        mine = loop.create_future()
        (self._later if later else self._first).append(mine)
        await mine
        return True

    def _flows(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._alone > 0.5 and loop.time() - self._last_s < _FLOWING_S  # noqa: PLR2004 - most of the events

    def _line(self) -> deque[asyncio.Future[None]]:
        """Return whose turn it is. The rest may never end: what has gathered behind it has every other turn."""
        self._odd = not self._odd
        behind = len(self._later) > len(self._first)
        return self._later if not self._first or (behind and self._odd) else self._first

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a round: let one piece of work be done in it, if one waits; all, once no stream flows any more."""
        flows = self._flows(loop)
        while self._first or self._later:
            waiting = self._line().popleft()
            if waiting.done():
                continue
            waiting.set_result(None)
            if flows:
                loop.call_soon(self._next, loop)
                return
        self._taken = False
