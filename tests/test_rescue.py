"""Streams that break after the caller has begun to read, and what saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.backend.base import Event
from app.call import Target
from app.guard.breaker import Permit
from app.hold import Hold, Opened
from app.rescue import _remainder
from tests.failure_play import ANSWER, call
from tests.test_dispatch import metric, records
from tests.test_failures import assert_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.backend.base import Take
    from tests.conftest import Running, Start
    from tests.upstream import Upstream


@pytest.fixture
async def sluice(up: Upstream, start: Start) -> AsyncIterator[Running]:
    """A gateway with one backend that takes a prefill, ``pre``, and one of which nobody knows, ``up``."""
    text = f"BACKENDS__PRE__BASE_URL={up.url}\nBACKENDS__PRE__PREFILL=true\nIDLE_TIMEOUT_S=0.3\n"
    async with start(text + "FIRST_CONTENT_TIMEOUT_S=0.5\n", up=up) as found:
        yield found


def prefilled(up: Upstream, model: str) -> list[bool]:
    """Say of each attempt at a model whether it was asked to continue."""
    return [attempt.body["messages"][-1]["role"] == "assistant" for attempt in up.of(model)]


class TestContinue:
    async def test_a_cut_is_continued_by_the_same_target_first(self, sluice: Running, up: Upstream) -> None:
        kept = records(sluice)
        got = await call(sluice.client, "pre/m-prefill-cut:3:x1", stream=True, models=["pre/b-prefill"])
        assert (got.outcome, got.text, got.models) == ("whole", ANSWER, {"m-prefill-cut:3:x1"})
        assert prefilled(up, "m-prefill-cut:3:x1") == [False, True]
        assert up.of("b-prefill") == []
        assert kept[0].rescued == ("continue",)
        assert await metric(sluice, 'sluice_rescues_total{how="continue"}') == 1
        assert_settled(sluice)

    async def test_what_was_said_is_the_prefill_and_leaves_the_limit(self, sluice: Running, up: Upstream) -> None:
        await call(sluice.client, "pre/m-prefill-cut:3:x1", stream=True, max_tokens=50)
        first, second = (attempt.body for attempt in up.log)
        said = second["messages"][-1]["content"]
        assert ANSWER.startswith(said)
        assert len(said.split()) == 3
        assert (first["max_tokens"], second["max_tokens"]) == (50, 47)

    async def test_a_stall_is_continued_elsewhere_at_once(self, sluice: Running, up: Upstream) -> None:
        got = await call(sluice.client, "pre/m-prefill-stall:3", stream=True, models=["pre/b-prefill"])
        assert (got.outcome, got.models) == ("whole", {"m-prefill-stall:3"})
        assert (prefilled(up, "m-prefill-stall:3"), prefilled(up, "b-prefill")) == ([False], [True])
        assert got.wall_s < 1.5

    async def test_cut_again_and_again_it_is_continued_again(self, sluice: Running, up: Upstream) -> None:
        kept = records(sluice)
        got = await call(sluice.client, "pre/m-prefill-cut:3:x3", stream=True)
        assert (got.outcome, kept[0].rescued) == ("whole", ("continue",) * 3)
        assert len(up.log) == 4

    async def test_but_not_for_ever(self, sluice: Running, up: Upstream) -> None:
        got = await call(sluice.client, "pre/m-prefill-cut:1", stream=True)
        assert got.outcome == "event"
        assert len(up.log) == 4
        assert ANSWER.startswith(got.text)

    async def test_where_an_event_was_lost_the_answer_is_told_anew(self, sluice: Running, up: Upstream) -> None:
        kept = records(sluice)
        got = await call(sluice.client, "pre/m-prefill-bad:2-cut:4:x1", stream=True, models=["pre/b-prefill"])
        assert (got.outcome, kept[0].rescued) == ("whole", ("restart",))
        assert prefilled(up, "b-prefill") == [False]

    async def test_a_target_that_hangs_is_asked_once(self, sluice: Running, up: Upstream) -> None:
        chain = ["pre/b-hang", "pre/c-prefill"]
        got = await call(sluice.client, "pre/m-prefill-stall:3", stream=True, models=chain)
        assert got.outcome == "whole"
        assert prefilled(up, "b-hang") == [True]


class TestRefusedPrefill:
    """F14."""

    async def test_the_refusal_is_remembered(self, sluice: Running, up: Upstream) -> None:
        for _ in range(2):
            got = await call(sluice.client, "up/m-cut:3", stream=True, models=["pre/b-noprefill"])
            assert got.outcome == "whole"
        assert prefilled(up, "b-noprefill") == [True, False, False]

    async def test_the_refusal_never_hides_the_real_failure(self, sluice: Running) -> None:
        got = await call(sluice.client, "pre/m-noprefill-cut:3", stream=True)
        assert got.outcome == "event"
        assert "prefill" not in got.error["message"].replace("m-noprefill", "")
        assert got.error["code"] == "incomplete_answer"

    async def test_the_refusal_counts_against_nobody(self, sluice: Running) -> None:
        await call(sluice.client, "up/m-cut:3", stream=True, models=["pre/b-noprefill"])
        lane = next(lane for lane in sluice.gateway.lanes if lane.target.backend == "pre")
        assert lane.breaker.counts() == (0, 1)


class TestRestart:
    async def test_what_was_said_is_skipped(self, sluice: Running) -> None:
        kept = records(sluice)
        got = await call(sluice.client, "up/m-cut:3", stream=True, models=["up/b"])
        assert (got.outcome, got.text, got.models) == ("whole", ANSWER, {"m-cut:3"})
        assert (kept[0].rescued, str(kept[0].target)) == (("restart",), "up/b")
        assert await metric(sluice, 'sluice_rescues_total{how="restart"}') == 1

    @pytest.mark.parametrize("size", [1, 7, 4096])
    async def test_wherever_the_new_events_are_cut(self, sluice: Running, size: int) -> None:
        got = await call(sluice.client, "up/m-cut:5", stream=True, models=[f"up/b-bytes:{size}"])
        assert (got.outcome, got.text) == ("whole", ANSWER)

    async def test_another_answer_is_an_error_event_and_another_is_tried_first(
        self, sluice: Running, up: Upstream
    ) -> None:
        got = await call(sluice.client, "up/m-cut:3", stream=True, models=["up/b-other", "up/c"])
        assert got.outcome == "whole"
        assert len(up.of("b-other")) == 1
        got = await call(sluice.client, "up/m-cut:3", stream=True, models=["up/b-other"])
        assert (got.outcome, got.error["code"]) == ("event", "incomplete_answer")
        assert got.text == " ".join(ANSWER.split()[:3])
        assert_settled(sluice)
        await up.wait_for(lambda _: up.active == 0)

    async def test_tool_calls_are_never_told_twice(self, sluice: Running, up: Upstream) -> None:
        tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
        got = await call(sluice.client, "up/m-cut:1", stream=True, models=["up/b"], tools=tools, tool_choice="required")
        assert got.outcome == "event"
        assert up.of("b") == []

    async def test_reasoning_is_skipped_too(self, sluice: Running) -> None:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "REASON one two three four five"}]}
        got = await call(sluice.client, "up/m-cut:3", stream=True, models=["up/b"], **body)
        assert got.text == "That is the conclusion of it."
        assert got.error == {}


class TestSilence:
    """Events that come one by one go straight on, and wake nobody; silence is found out all the same."""

    async def test_who_speaks_steadily_may_take_longer_than_a_silence(self, sluice: Running) -> None:
        got = await call(sluice.client, "up/m-pace:60", stream=True)
        assert (got.outcome, got.text) == ("whole", ANSWER)
        assert sluice.gateway.flow._alone > 0
        assert_settled(sluice)

    async def test_who_falls_silent_is_found_out(self, sluice: Running) -> None:
        got = await call(sluice.client, "up/m-pace:60-stall:7", stream=True)
        assert (got.outcome, len(got.text.split())) == ("event", 7)
        assert sluice.gateway.flow._alone > 0
        assert_settled(sluice)


class _Stream:
    """As much of a stream as the transcript needs."""

    whole = False
    malformed = 0
    waits = False

    async def batch(self) -> list[Event]:
        return []

    def pass_on(self, take: Take) -> None:
        """Nothing comes."""

    def finish(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": "none"}, {"choices": [None]}, {"choices": [{"delta": 0}]}, {"choices": [{"index": []}]},
        {"choices": [{"delta": "text"}]}, {"choices": 7}, {"choices": {"0": {}}},
    ],
)  # fmt: skip
async def test_events_of_wrong_types_are_skipped(sluice: Running, chunk: dict[str, Any]) -> None:
    lane = sluice.gateway.lanes.of(sluice.gateway.live.current.backend_configs["up"], Target("up", "m"))
    permit = lane.breaker.admit()
    assert isinstance(permit, Permit)
    opened = Opened(Hold(lane, permit, await lane.gate.enter(1e9)), _Stream())
    assert opened.read([Event(b"", chunk)]) == []
    assert opened.malformed == 1


async def test_a_rest_that_comes_with_its_finish_keeps_it() -> None:
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "b c"}, "finish_reason": "stop"}], "usage": {}}
    surplus, end = _remainder([Event(b"", chunk)], "", " c")
    assert surplus.chunk["choices"][0] == {"index": 0, "delta": {"content": " c"}, "finish_reason": None}
    assert end.chunk["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
