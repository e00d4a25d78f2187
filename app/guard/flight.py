"""Single flight: identical calls that are under way at once share one upstream call, whoever of them leaves."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from app.errors import BackendError, Reason
from app.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.call import Target
    from app.trace import Trace


class Piece(Protocol):
    """One event of a stream."""

    @property
    def raw(self) -> bytes:
        """The bytes it came as."""

    @property
    def chunk(self) -> dict[str, Any]:
        """The same decoded."""


class Source(Protocol):
    """A streamed answer."""

    said: Transcript

    @property
    def target(self) -> Target:
        """Who answers."""

    async def batch(self) -> list[Any]:
        """Return the next events; none once the answer is whole."""

    def close(self) -> None:
        """Close everything at once; harmless when repeated."""


T = TypeVar("T")
S = TypeVar("S", bound=Source)


class Seat:
    """One call's place in a flight."""

    __slots__ = ("at", "first", "trace")

    def __init__(self, trace: Trace, *, first: bool) -> None:
        self.trace = trace
        self.first = first
        self.at = 0


class Flight(Generic[T]):
    """One upstream call and the calls that wait for it. It ends when it is done, or when the last of them has left.

    The upstream call has a trace of its own. What happens is told to the call that boarded first; once that has left,
    to the first of those that stayed: each attempt is on exactly one record.

    Args:
        trace: of the call that begins it.
        work: makes the upstream call, and tells the trace that it is given.
        landed: called when nobody may board any more.
    """

    def __init__(self, trace: Trace, work: Callable[[Trace], Awaitable[T]], landed: Callable[[], None]) -> None:
        self._trace = trace.branch()
        self._landed = landed
        self._told = 0
        self._begun = False
        self._seats: list[Seat] = []
        self._left: Seat | None = None
        self._over = False
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[T] = loop.create_future()
        self._opened.add_done_callback(_retrieve)
        self._task = loop.create_task(self._fly(work))
        self._task.add_done_callback(_retrieve)

    def board(self, trace: Trace) -> Seat:
        """Add a call."""
        seat = Seat(trace, first=not self._begun)
        self._begun = True
        self._seats.append(seat)
        return seat

    async def answer(self, seat: Seat, deadline: float) -> T:
        """Return the answer once it is there; ``deadline`` is this call's, on the event loop's clock, in seconds.

        Raises:
            SluiceError: the upstream call failed, or the deadline passed first.
        """
        try:
            async with asyncio.timeout_at(deadline):
                answer = await asyncio.shield(self._opened)
        except TimeoutError as error:
            raise BackendError(
                Reason.DEADLINE, "The call's deadline has passed.", status=504, code="deadline_exceeded"
            ) from error
        except Exception as error:  # noqa: BLE001 - it is raised again
            raise (error if seat.first else copy.copy(error)) from None
        if seat.first:
            self._tell(seat)
        return answer

    async def leave(self, seat: Seat) -> None:
        """Take a call out; with the last one the upstream call ends, before this returns."""
        self._stand_up(seat)
        if not self._seats and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _stand_up(self, seat: Seat) -> None:
        if seat not in self._seats:
            return
        if seat.first:
            self._tell(seat)
        self._seats.remove(seat)
        self._left = seat
        if not self._seats:
            self._landed()

    async def _fly(self, work: Callable[[Trace], Awaitable[T]]) -> None:
        try:
            answer = await work(self._trace)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._land()
            self._opened.set_exception(error)
        except BaseException:
            self._land()
            self._opened.cancel()
            raise
        else:
            await self._opened_with(answer)

    async def _opened_with(self, answer: T) -> None:
        self._land()
        self._opened.set_result(answer)

    def _land(self) -> None:
        """End, and tell the rest to a call that is still here, or was here last."""
        if self._over:
            return
        self._over = True
        self._landed()
        payer = self._seats[0] if self._seats else self._left
        if payer is not None:
            self._tell(payer)
        for seat in self._seats:
            seat.trace.faults, seat.trace.polished = self._trace.faults, self._trace.polished

    def _tell(self, seat: Seat) -> None:
        """Tell a call what nobody has been told yet; only the first one's time went where the trace says."""
        seat.trace.attempts += self._trace.attempts[self._told :]
        self._told = len(self._trace.attempts)
        if seat.first:
            seat.trace.absorb(self._trace)


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Take note of an exception that nobody may be left to hear."""
    if not done.cancelled():
        done.exception()


class StreamFlight(Flight[S]):
    """A flight of streamed calls: each hears the whole answer, from its beginning, at its own speed.

    The upstream is read when the fastest of them wants more, and no sooner.

    Args:
        trace: of the call that begins it.
        work: makes the upstream call, and tells the trace that it is given.
        landed: called when nobody may board any more.
        keep: given the whole answer and its events, where these were not too large.
        most_bytes: of events that are held for calls that board later, and to be kept.
    """

    def __init__(
        self,
        trace: Trace,
        work: Callable[[Trace], Awaitable[S]],
        landed: Callable[[], None],
        keep: Callable[[S, list[Any], Trace], None],
        most_bytes: int,
    ) -> None:
        self._keep = keep
        self._most_bytes = most_bytes
        self._bytes = 0
        self._events: list[Any] = []
        self._dropped = 0
        self._error: Exception | None = None
        self._source: S | None = None
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        super().__init__(trace, work, landed)

    async def _opened_with(self, answer: S) -> None:
        self._source = answer
        self._opened.set_result(answer)
        try:
            while await self._pull(answer):
                pass
            if self._bytes <= self._most_bytes:
                self._keep(answer, self._events, self._trace)
        except Exception as error:  # noqa: BLE001 - whoever listens gets it
            self._error = error
        finally:
            answer.close()
            self._land()
            self._news.set()

    async def _pull(self, source: S) -> bool:
        """Wait until somebody wants more and get it; return whether there was any."""
        await self._wanted.wait()
        self._wanted.clear()
        events = await source.batch()
        self._events += events
        self._bytes += sum(len(each.raw) for each in events)
        if self._bytes > self._most_bytes:
            self._forget()
        self._news.set()
        return bool(events)

    def _forget(self) -> None:
        """Drop what everybody has heard: nobody boards any more, and the answer is not kept."""
        self._landed()
        heard = min((seat.at for seat in self._seats), default=0)
        del self._events[: heard - self._dropped]
        self._dropped = heard

    async def hear(self, seat: Seat) -> list[Any]:
        """Return the events that a call has not heard yet, at least one; none once the answer is whole.

        Raises:
            SluiceError: the stream broke; all that came before has been heard.
        """
        while seat.at == self._dropped + len(self._events):
            if self._over:
                if self._error is not None:
                    raise (self._error if seat.first else copy.copy(self._error)) from None
                return []
            self._news.clear()
            self._wanted.set()
            await self._news.wait()
        events = self._events[seat.at - self._dropped :]
        seat.at += len(events)
        return events

    def leave_now(self, seat: Seat) -> None:
        """Take a call out; with the last one everything is closed when this returns."""
        self._stand_up(seat)
        if not self._seats and not self._over and self._source is not None:
            self._source.close()
            self._land()
            self._task.cancel()


class Listener(Generic[S]):
    """One call's ear at a stream; the same face as the stream itself.

    Attributes:
        target: who answers.
        said: what this call has been given so far.
        replayed: whether another call pays for it.
    """

    def __init__(self, flight: StreamFlight[S], seat: Seat, source: S) -> None:
        self._flight = flight
        self._seat = seat
        self._source = source
        self.said = source.said if seat.first else Transcript()
        self.replayed = not seat.first

    @property
    def target(self) -> Target:
        """Who answers."""
        return self._source.target

    async def batch(self) -> list[Any]:
        """Return the next events, at least one; none once the answer is whole.

        Raises:
            SluiceError: the answer broke and could not be saved.
        """
        events = await self._flight.hear(self._seat)
        if self._seat.first:
            self.said = self._source.said  # a rescue has another
        else:
            for each in events:
                self.said.hear(each)
        return events

    def pass_on(self, take: Callable[[Any], bool]) -> None:
        """Offer nothing to ``take``: who listens to a stream of several hears of its events by ``batch`` alone."""

    def close(self) -> None:
        """Leave; harmless when repeated."""
        self._flight.leave_now(self._seat)


class Flights:
    """Flights under way, by what their calls have in common."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight[Any]] = {}

    def of(self, key: str, begin: Callable[[Callable[[], None]], Flight[T]]) -> Flight[T]:
        """Return the flight to board; ``begin`` makes one where there is none, given what ends its boarding."""
        flight = self._flights.get(key)
        if flight is None:
            flight = begin(lambda: self._end(key, flight))
            self._flights[key] = flight
        return flight

    def _end(self, key: str, flight: Flight[T] | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
