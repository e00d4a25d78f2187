from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.call import Target
from app.errors import BackendError, Reason, SluiceError
from app.guard.flight import Flight, Flights, Listener, StreamFlight
from app.trace import Attempt, Trace
from app.transcript import Transcript

_TARGET = Target("up", "m")
_LATER = time.monotonic() + 3600


class Work:
    """An upstream call that goes on when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.ended = ""
        self.error: Exception | None = None

    async def __call__(self, trace: Trace) -> str:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            trace.attempts.append(Attempt(_TARGET, "abandoned"))
            raise
        if self.error is not None:
            raise self.error
        trace.attempts.append(Attempt(_TARGET, "ok"))
        trace.faults = ("too_short",)
        self.ended = "done"
        return "answer"


async def _call(flights: Flights, work: Work, trace: Trace, deadline: float = _LATER) -> str:
    flight = flights.of("k", lambda ended: Flight(trace, work, ended))
    seat = flight.board(trace)
    try:
        return await flight.answer(seat, deadline)
    finally:
        await flight.leave(seat)


async def _started(*calls: asyncio.Task[Any]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


def _results(*traces: Trace) -> list[list[str]]:
    return [[attempt.result for attempt in trace.attempts] for trace in traces]


async def test_identical_calls_make_one_and_one_of_them_pays() -> None:
    flights, work, traces = Flights(), Work(), [Trace() for _ in range(3)]
    calls = [asyncio.create_task(_call(flights, work, trace)) for trace in traces]
    await _started(*calls)
    work.go.set()
    assert await asyncio.gather(*calls) == ["answer"] * 3
    assert work.begun == 1
    assert _results(*traces) == [["ok"], [], []]
    assert [trace.faults for trace in traces] == [("too_short",)] * 3
    assert await _call(flights, work, Trace()) == "answer"
    assert work.begun == 2


async def test_it_survives_the_one_that_began_it_and_the_next_one_pays() -> None:
    flights, work, traces = Flights(), Work(), [Trace() for _ in range(3)]
    calls = [asyncio.create_task(_call(flights, work, trace)) for trace in traces]
    await _started(*calls)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    work.go.set()
    assert await asyncio.gather(*calls[1:]) == ["answer"] * 2
    assert _results(*traces) == [[], ["ok"], []]


async def test_with_the_last_one_it_ends_before_that_one_has_left() -> None:
    flights, work, traces = Flights(), Work(), [Trace() for _ in range(2)]
    calls = [asyncio.create_task(_call(flights, work, trace)) for trace in traces]
    await _started(*calls)
    for call in calls:
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert work.ended == "cancelled"
    assert _results(*traces) == [[], ["abandoned"]]
    again = asyncio.create_task(_call(flights, work, Trace()))
    await _started(again)
    work.go.set()
    assert await again == "answer"


async def test_a_failure_reaches_all_each_as_its_own() -> None:
    flights, work = Flights(), Work()
    work.error = SluiceError("no", status=503)
    calls = [asyncio.create_task(_call(flights, work, Trace())) for _ in range(2)]
    await _started(*calls)
    work.go.set()
    one, other = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(one, SluiceError)
    assert isinstance(other, SluiceError)
    assert one is not other
    assert (one.status, other.status) == (503, 503)


async def test_one_whose_deadline_passes_leaves_the_others_alone() -> None:
    flights, work = Flights(), Work()
    patient = asyncio.create_task(_call(flights, work, Trace()))
    await _started(patient)
    with pytest.raises(BackendError) as caught:
        await _call(flights, work, Trace(), asyncio.get_running_loop().time())
    assert caught.value.reason is Reason.DEADLINE
    work.go.set()
    assert await patient == "answer"


class _Piece:
    def __init__(self, text: str) -> None:
        self.raw = text.encode()
        self.texts = [text]
        self.chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}


class Stream:
    """A source of words, given out one a batch."""

    target = _TARGET

    def __init__(self, trace: Trace, words: list[str], error: Exception | None = None) -> None:
        self.said = Transcript()
        self.trace = trace
        self.pulled = 0
        self.closed = False
        self._words = words
        self._error = error

    async def batch(self) -> list[Any]:
        await asyncio.sleep(0)
        if self.pulled == len(self._words):
            if self._error is not None:
                raise self._error
            self.trace.attempts.append(Attempt(_TARGET, "ok"))
            return []
        piece = _Piece(self._words[self.pulled])
        self.said.take(piece.chunk)
        self.pulled += 1
        return [piece]

    def close(self) -> None:
        if not self.closed and self.pulled < len(self._words):
            self.trace.attempts.append(Attempt(_TARGET, "abandoned"))
        self.closed = True


class Channel:
    """What listeners of one stream share in a test."""

    def __init__(self, words: list[str], error: Exception | None = None, most_bytes: int = 1000) -> None:
        self.flights = Flights()
        self.kept: list[str] = []
        self.streams: list[Stream] = []
        self._words, self._error, self._most_bytes = words, error, most_bytes

    async def _work(self, trace: Trace) -> Stream:
        self.streams.append(Stream(trace, self._words, self._error))
        return self.streams[-1]

    def _keep(self, _: Stream, events: list[Any], __: Trace) -> None:
        self.kept.append("".join(each.raw.decode() for each in events))

    async def tune_in(self, trace: Trace) -> Listener[Stream]:
        flight: Any = self.flights.of(
            "k", lambda ended: StreamFlight(trace, self._work, ended, self._keep, self._most_bytes)
        )
        seat = flight.board(trace)
        return Listener(flight, seat, await flight.answer(seat, _LATER))


async def _all(listener: Listener[Stream]) -> str:
    heard = ""
    while events := await listener.batch():
        heard += "".join(each.raw.decode() for each in events)
    listener.close()
    return heard


async def test_every_listener_hears_all_from_the_beginning() -> None:
    channel, traces = Channel(["a", "b", "c"]), [Trace(), Trace(), Trace()]
    first = await channel.tune_in(traces[0])
    assert [each.raw for each in await first.batch()] == [b"a"]
    second = await channel.tune_in(traces[1])
    assert list(await asyncio.gather(_all(first), _all(second))) == ["bc", "abc"]
    assert (first.replayed, second.replayed) == (False, True)
    assert "".join(second.said.text) == "abc"
    assert _results(*traces[:2]) == [["ok"], []]
    assert (channel.kept, len(channel.streams)) == (["abc"], 1)
    third = await channel.tune_in(traces[2])
    assert not third.replayed
    third.close()


async def test_upstream_is_read_no_faster_than_the_fastest_listener() -> None:
    channel = Channel(["a", "b", "c"])
    listener = await channel.tune_in(Trace())
    await listener.batch()
    for _ in range(10):
        await asyncio.sleep(0)
    assert channel.streams[0].pulled == 1
    listener.close()
    assert channel.streams[0].closed
    assert channel.kept == []


async def test_a_stream_outlives_its_first_listener() -> None:
    channel, traces = Channel(["a", "b", "c"]), [Trace(), Trace()]
    first = await channel.tune_in(traces[0])
    second = await channel.tune_in(traces[1])
    await first.batch()
    first.close()
    assert not channel.streams[0].closed
    assert await _all(second) == "abc"
    assert _results(*traces) == [[], ["ok"]]
    assert channel.kept == ["abc"]


async def test_with_its_last_listener_a_stream_is_closed_at_once() -> None:
    channel, traces = Channel(["a", "b", "c"]), [Trace(), Trace()]
    listeners = [await channel.tune_in(trace) for trace in traces]
    for listener in listeners:
        await listener.batch()
        listener.close()
        listener.close()
    assert channel.streams[0].closed
    assert _results(*traces) == [[], ["abandoned"]]


async def test_a_broken_stream_breaks_for_all_after_what_came() -> None:
    channel = Channel(["a", "b"], SluiceError("cut", status=502))
    listeners = [await channel.tune_in(Trace()), await channel.tune_in(Trace())]
    heard = []
    for listener in listeners:
        heard.append([each.raw for each in await listener.batch()])
        with pytest.raises(SluiceError, match="cut"):
            await _all(listener)
        listener.close()
    assert channel.kept == []


async def test_what_is_too_large_is_let_go_of_and_nobody_boards_any_more() -> None:
    channel = Channel(["aaaa", "bbbb", "cccc"], most_bytes=6)
    first = await channel.tune_in(Trace())
    await first.batch()
    slow = await channel.tune_in(Trace())
    await first.batch()
    late = await channel.tune_in(Trace())
    assert not late.replayed
    heard = await asyncio.gather(_all(first), _all(slow), _all(late))
    assert list(heard) == ["cccc", "aaaabbbbcccc", "aaaabbbbcccc"]
    assert channel.kept == []
