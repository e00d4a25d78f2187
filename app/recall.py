"""Answers from memory: what was answered before, and what an identical call under way is being answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import Event, Whole, apart
from app.call import Target
from app.dispatch import Answer
from app.errors import BackendError, Reason
from app.guard.flight import Flight, Listener, StreamFlight
from app.replay import Replay, Retold, joined
from app.route.cacheable import whole
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.call import Ask
    from app.charge import Tended
    from app.gateway import Gateway
    from app.rescue import StreamAnswer
    from app.trace import Trace

    Streamed = StreamAnswer | Replay | Tended | Listener[Any]
    AnyAnswer = Answer | Streamed
    Work = Callable[[Trace], Awaitable[AnyAnswer]]


@value
class Recall:
    """One call that may be answered from memory.

    Attributes:
        key: the same for calls that get the same answer.
        first: the plan's first candidate: what another one answers in its place is not kept.
    """

    ask: Ask
    key: str
    first: Target
    gateway: Gateway
    trace: Trace

    async def answer(self, work: Work) -> AnyAnswer:
        """Return what is kept, or what the upstream call of a flight gives; ``work`` makes that call.

        Raises:
            SluiceError: the upstream call failed.
        """
        kept = await self.gateway.cache.find(self.key)
        found = self._read(kept) if kept is not None else None
        self.trace.stage("cache")
        if found is not None:
            self.trace.cache = "hit"
            return found
        while True:
            try:
                return await (self._listened(work) if self.ask.stream else self._flown(work))
            except BackendError as error:
                late = error.reason is Reason.DEADLINE and self.trace.cache == "hit"
                if not late or asyncio.get_running_loop().time() >= self.ask.deadline:
                    raise  # else it was the time of another call that was up

    async def _flown(self, work: Work) -> AnyAnswer:
        async def make(trace: Trace) -> AnyAnswer:
            answer = await work(trace)
            if isinstance(answer, Answer):
                self._keep(answer, trace)
            return answer

        flight = self.gateway.flights.of(self._flight_key, lambda ended: Flight(self.trace, make, ended))
        seat = flight.board(self.trace)
        self.trace.cache = "miss" if seat.first else "hit"
        try:
            return await flight.answer(seat, self.ask.deadline)
        finally:
            await flight.leave(seat)
            self.trace.stage("answer")

    async def _listened(self, work: Work) -> AnyAnswer:
        def begin(ended: Callable[[], None]) -> StreamFlight[Any]:
            return StreamFlight(self.trace, work, ended, self._keep_events, self.gateway.cache.most_bytes)

        flight: Any = self.gateway.flights.of(f"{self._flight_key}:stream", begin)
        seat = flight.board(self.trace)
        self.trace.cache = "miss" if seat.first else "hit"
        try:
            source = await flight.answer(seat, self.ask.deadline)
        except BaseException:
            await flight.leave(seat)
            raise
        finally:
            self.trace.stage("first_token")
        return Listener(flight, seat, source)

    @property
    def _flight_key(self) -> str:
        """Return what calls of one flight have in common: one key pays for them, and hears what that key is told."""
        return f"{self.ask.key.id if self.ask.key is not None else ''}:{self.key}"

    # -- keeping -------------------------------------------------------------------------------------------------------

    def _keep(self, answer: Answer, trace: Trace) -> None:
        """Keep a plain answer that is good."""
        choices = answer.whole.body.get("choices") or ()
        if getattr(answer.whole, "native", None) is not None:
            return  # on the caller's own wire
        if self._good(trace) and whole(choice.get("finish_reason") for choice in choices):
            self.gateway.cache.keep(self.key, b"%b\n%b" % (str(answer.target).encode(), answer.whole.raw))

    def _keep_events(self, source: StreamAnswer | Replay | Tended, events: list[Event], trace: Trace) -> None:
        """Keep a streamed answer that is good, event by event."""
        if any(type(each) is not Event for each in events):
            return  # on the caller's own wire
        if self._good(trace) and whole(source.said.finish.values()):
            chunks = orjson.dumps([each.chunk for each in apart(events)])
            self.gateway.cache.keep(self.key, b"%b\n%b" % (str(source.target).encode(), chunks))

    def _good(self, trace: Trace) -> bool:
        """Whether an answer is what the call asked for: neither weak, nor by a stand-in, nor pieced together."""
        drafted = next((each.target for each in trace.attempts if each.result == "ok"), None)
        return drafted == self.first and not trace.weak and not trace.rescued

    def _read(self, kept: bytes) -> Answer | Replay | None:
        """Read what is kept, a whole answer or the chunks of one; None where this call cannot be given it."""
        head, _, told = kept.partition(b"\n")
        target = Target.parse(head.decode())
        body = orjson.loads(told)
        if isinstance(body, list):
            if self.ask.stream:
                return Retold(target, body)
            body = joined(body)
            told = orjson.dumps(body)
        if body is None:
            return None
        answer = Answer(target, Whole(told, body))
        return Replay(answer) if self.ask.stream else answer
