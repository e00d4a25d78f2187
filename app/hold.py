"""An attempt under way: what it holds, and the stream that it has opened."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.errors import BackendError, Reason
from app.patience import Until
from app.transcript import Transcript

if TYPE_CHECKING:
    from app.backend.base import Event, EventStream, Take
    from app.call import Target
    from app.guard.breaker import Outcome, Permit
    from app.guard.gate import Slot
    from app.guard.lanes import Lane


_AFTER_FINISH_S = 1.0
"""How long after the finish_reason usage and ``[DONE]`` may still come; a backend that lingers is not waited for."""


@dataclass(slots=True)
class Hold:
    """What an attempt under way holds: the breaker's permit and the slot. Settled exactly once."""

    lane: Lane
    permit: Permit
    slot: Slot
    started: float = field(default_factory=time.monotonic)

    def settle(self, outcome: Outcome, reason: str = "", status: int | None = None) -> None:
        """Give both back, and say how it went."""
        self.slot.leave()
        self.permit.report(outcome, reason, status)

    def ms(self) -> float:
        """Return the milliseconds since the attempt began."""
        return round((time.monotonic() - self.started) * 1000, 3)


@dataclass(slots=True)
class Opened:
    """A stream past its commit point: the events so far, and what they say.

    Attributes:
        idle_s: how long it may stay silent.
        deadline: of the answer, on the event loop's clock.
    """

    hold: Hold
    stream: EventStream
    idle_s: float = math.inf
    deadline: float = math.inf
    script: Transcript = field(default_factory=Transcript)
    held: list[Event] = field(default_factory=list)
    unreadable: int = 0
    _wait: Until | None = field(default=None, repr=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, repr=False)

    def taken(self) -> list[Event]:
        """Return the events that were held back until the commit."""
        held, self.held = self.held, []
        return held

    def read(self, events: list[Event]) -> list[Event]:
        """Add events to the transcript; those whose parts are not what they should be are skipped as malformed."""
        good = []
        for event in events:
            try:
                self.script.hear(event)
            except (AttributeError, TypeError, ValueError):
                self.unreadable += 1
            else:
                good.append(event)
        return good

    @property
    def malformed(self) -> int:
        """How many events were skipped because they could not be read."""
        return self.stream.malformed + self.unreadable

    async def pull(self) -> list[Event]:
        """Return the next events; none once the answer is whole.

        Raises:
            BackendError: STALLED, CUT, DEADLINE, or what the backend said.
        """
        while not (self.script.finished and (self.stream.whole or self.script.usage_known)):
            if self._loop.time() >= self.deadline:  # no timeout strikes while there is always something to read
                raise late()
            events = await self._arrived()
            if not events and not self.script.finished:
                raise cut(self.hold.lane.target)
            good = self.read(events)
            if good or not events:
                return good
        return []

    async def _arrived(self) -> list[Event]:
        """Wait for the next events; once the answer has its finish_reason nothing that fails matters any more."""
        finished = self.script.finished
        limit = min(self._loop.time() + (_AFTER_FINISH_S if finished else self.idle_s), self.deadline)
        try:
            with Until(limit) as wait:
                self._wait = None if finished else wait
                return await self.stream.batch()
        except TimeoutError as error:
            if finished:
                return []
            raise (late() if self._loop.time() >= self.deadline else self._silent()) from error
        except BackendError:
            if finished:
                return []
            raise

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive while :meth:`pull` waits to ``take``; it waits on if they are taken."""

        def heard(event: Event) -> bool:
            wait = self._wait
            if wait is None or not take(event):
                return False
            self.script.hear(event)
            wait.limit = min(self._loop.time() + self.idle_s, self.deadline)
            return True

        self.stream.pass_on(heard)

    def _silent(self) -> BackendError:
        message = f"{self.hold.lane.target} went silent for {self.idle_s:g} s in mid-stream."
        return BackendError(Reason.STALLED, message, status=504)

    def close(self) -> None:
        """Close the connection, and settle what nobody has settled: the caller left."""
        self.stream.close()
        self.hold.settle("ignored")


def cut(target: Target) -> BackendError:
    """Return the error of an answer that ended in the middle."""
    return BackendError(Reason.CUT, f"{target} ended its answer without a finish_reason.", code="incomplete_answer")


def late() -> BackendError:
    """Return the error of a call whose time is up."""
    return BackendError(Reason.DEADLINE, "The call's deadline has passed.", status=504, code="deadline_exceeded")
