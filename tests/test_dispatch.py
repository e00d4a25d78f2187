"""Candidates, retries, lanes and slots through a real gateway."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from app.guard.lanes import Lanes
from tests.failure_play import ANSWER, call
from tests.guard.clock import Clock
from tests.test_failures import assert_settled, most_in

if TYPE_CHECKING:
    from app.trace import Record
    from tests.conftest import Running, Start
    from tests.upstream import Upstream


async def metric(sluice: Running, line: str) -> float:
    """Return a sample's value; 0 where there is none."""
    text = (await sluice.client.get("/metrics")).text
    return next((float(each.rsplit(" ", 1)[1]) for each in text.splitlines() if each.startswith(line + " ")), 0.0)


async def breakers(sluice: Running) -> dict[str, Any]:
    lanes: dict[str, Any] = (await sluice.client.get("/admin/breakers")).json()["lanes"]
    return lanes


def records(sluice: Running) -> list[Record]:
    """Return a list that every record of a call gets into."""
    found: list[Record] = []
    sluice.gateway.hooks.append(found.append)
    return found


async def trip(sluice: Running, model: str) -> None:
    await asyncio.gather(*(sluice.chat(f"up/{model}") for _ in range(5)))
    assert (await breakers(sluice))[f"up/{model}"]["state"] == "open"


async def test_a_chain_of_failing_candidates_is_no_reason_to_hammer(up: Upstream, start: Start) -> None:
    async def hold_back(sluice: Running, kind: str) -> None:
        chain = [f"up/{kind}{letter}-500" for letter in "abcdef"]
        got = await call(sluice.client, chain[0], stream=kind == "streamed", models=[*chain[1:], f"up/{kind}"])
        assert got.outcome == "whole"
        starts = [attempt.at for attempt in up.log if attempt.model.startswith(kind)]
        assert len(starts) == 7
        assert most_in(starts, 3.0) == 4
        assert got.wall_s < 5

    async with start("RETRIES=0\n", up=up) as sluice:
        await asyncio.gather(hold_back(sluice, "whole"), hold_back(sluice, "streamed"))


async def test_headers_and_metrics_tell_retries_and_fallbacks(sluice: Running) -> None:
    got = await call(sluice.client, "up/one-503", stream=False, models=["up/two-401", "up/three"])
    assert got.headers["x-sluice-attempts"] == (
        "up/one-503=overloaded;up/one-503=overloaded;up/two-401=dead_key;up/three=ok"
    )
    assert got.headers["x-sluice-target"] == "up/three"
    assert await metric(sluice, 'sluice_retries_total{reason="overloaded"}') == 1
    assert await metric(sluice, 'sluice_fallbacks_total{reason="overloaded"}') == 1
    assert await metric(sluice, 'sluice_fallbacks_total{reason="dead_key"}') == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_model_usage_and_cost_are_those_of_who_answered(sluice: Running, up: Upstream, *, stream: bool) -> None:
    kept = records(sluice)
    chain = ["up/second-cost"]
    got = await call(sluice.client, "up/first-500", stream=stream, models=chain, stream_options={"include_usage": True})
    assert (got.outcome, got.models) == ("whole", {"second-cost"})
    (record,) = kept
    assert str(record.target) == "up/second-cost"
    assert record.usage is not None
    assert record.usage.cost_usd is not None
    assert [attempt.usage for attempt in record.attempts[:-1]] == [None, None]


async def test_a_cut_attempts_tokens_are_recorded_but_not_as_the_answer(sluice: Running) -> None:
    kept = records(sluice)
    await call(sluice.client, "up/first-cut:3", stream=True, models=["up/second"])
    lost, won = kept[0].attempts
    assert (lost.usage and lost.usage.completion, lost.usage and lost.usage.estimated) == (3, True)
    assert kept[0].usage == won.usage
    assert won.usage is not None
    assert not won.usage.estimated


class TestDown:
    """F15: down for a while, then healthy."""

    @pytest.fixture
    async def clock(self, sluice: Running) -> Clock:
        clock = Clock(time.monotonic())
        sluice.gateway.lanes = Lanes(clock=clock)
        sluice.env.write_text(sluice.env.read_text() + "FIRST_CONTENT_TIMEOUT_S=60\nANSWER_TIMEOUT_S=60\n")
        await sluice.client.post("/admin/reload")
        return clock

    @pytest.mark.parametrize("stream", [False, True])
    async def test_others_serve_meanwhile_and_it_is_back_within_30_s(
        self, sluice: Running, up: Upstream, clock: Clock, *, stream: bool
    ) -> None:
        up.always("sick", "503")
        down_s, asked_at = 60, []
        for second in range(0, 92, 2):
            if second == down_s:
                up.always("sick", None)
            before = len(up.of("sick"))
            got = await call(sluice.client, "up/sick", stream=stream, models=["up/well"])
            assert got.outcome == "whole"
            asked_at += [second] * (len(up.of("sick")) - before)
            clock.pass_s(2)
        probes = [at for at in asked_at if at > 10]
        assert len([at for at in probes if at < down_s]) <= 3
        assert max(set(range(down_s, 92, 2)) - set(probes)) < down_s + 30
        assert got.headers["x-sluice-target"] == "up/sick"

    async def test_100_callers_at_once_send_exactly_one_probe(
        self, sluice: Running, up: Upstream, clock: Clock
    ) -> None:
        up.always("sick", "503")
        await asyncio.gather(*(call(sluice.client, "up/sick", stream=False) for _ in range(3)))
        up.always("sick", "hang")
        before = len(up.of("sick"))
        clock.pass_s(6)
        calls = {
            asyncio.ensure_future(call(sluice.client, "up/sick", stream=bool(n % 2), models=["up/well"]))
            for n in range(100)
        }
        while len(calls) > 1:
            done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert {(each.result().outcome, each.result().headers["x-sluice-target"]) for each in done} == {
                ("whole", "up/well")
            }
        assert len(up.of("sick")) - before == 1
        calls.pop().cancel()

    @pytest.mark.usefixtures("clock")
    async def test_without_a_fallback_the_real_error_is_told(self, sluice: Running, up: Upstream) -> None:
        up.always("sick", "503")
        await asyncio.gather(*(call(sluice.client, "up/sick", stream=False) for _ in range(3)))
        got = await call(sluice.client, "up/sick", stream=False)
        assert got.outcome == "503"
        assert "currently overloaded" in got.error["message"]
        assert int(got.headers["retry-after"]) <= 20


class TestDeadKey:
    """F18."""

    async def test_the_lane_is_out_loudly_and_a_reload_brings_it_back(
        self, up: Upstream, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        up.key = "good"
        text = "BACKENDS__UP__API_KEY=bad\nBACKENDS__TWO__BASE_URL=" + up.url
        text += "\nBACKENDS__TWO__API_KEY=good\nMODEL_LARGE=up/large,two/large\n"
        async with start(text, up=up) as sluice:
            for _ in range(3):
                got = await call(sluice.client, "auto", stream=False)
                assert (got.outcome, got.headers["x-sluice-target"]) == ("whole", "two/large")
            assert [attempt.status for attempt in up.log] == [401, 200, 200, 200]
            ready = (await sluice.client.get("/health/ready")).json()
            assert ready["status"] == "degraded"
            assert "dead" in ready["backends"]["up"]["why"]
            assert await metric(sluice, 'sluice_breaker_state{target="up/large"}') == 3
            assert "breaker of up/large: closed -> dead" in capfd.readouterr().err
            sluice.env.write_text(sluice.env.read_text().replace("=bad", "=good"))
            assert (await sluice.client.post("/admin/reload")).status_code == 200
            assert await metric(sluice, 'sluice_breaker_state{target="up/large"}') == 0
            got = await call(sluice.client, "auto", stream=False)
            assert got.headers["x-sluice-target"] == "up/large"
            assert (await sluice.client.get("/health/ready")).json()["status"] == "ready"

    async def test_two_backends_at_one_address_keep_their_own_keys(self, up: Upstream, start: Start) -> None:
        up.key = "good"
        text = f"BACKENDS__UP__API_KEY=bad\nBACKENDS__TWO__BASE_URL={up.url}\nBACKENDS__TWO__API_KEY=good\n"
        async with start(text, up=up) as sluice:
            assert (await call(sluice.client, "up/m", stream=False)).outcome == "401"
            assert (await call(sluice.client, "two/m", stream=False)).outcome == "whole"


class TestOperator:
    async def test_a_forced_breaker_is_obeyed_until_auto(self, sluice: Running, up: Upstream) -> None:
        path = "/admin/breakers/up/large"
        assert (await sluice.client.post(path, json={"state": "open"})).status_code == 200
        got = await call(sluice.client, "up/large", stream=False)
        assert (got.outcome, up.log) == ("503", [])
        got = await call(sluice.client, "up/large", stream=True, models=["up/well"])
        assert (got.outcome, got.headers["x-sluice-attempts"]) == ("whole", "up/large=open;up/well=ok")
        assert (await breakers(sluice))["up/large"]["forced"] == "open"
        await sluice.client.post(path, json={"state": "closed"})
        up.always("large", "500")
        await asyncio.gather(*(call(sluice.client, "up/large", stream=False) for _ in range(4)))
        assert (await breakers(sluice))["up/large"]["state"] == "closed"
        await sluice.client.post(path, json={"state": "auto"})
        assert (await breakers(sluice))["up/large"]["forced"] is None

    async def test_a_breaker_can_still_be_forced_after_its_key_changed(self, up: Upstream, start: Start) -> None:
        async with start("BACKENDS__UP__API_KEY=one\n", up=up) as sluice:
            await call(sluice.client, "up/m", stream=False)
            sluice.env.write_text(f"MLX_ENABLED=false\nBACKENDS__UP__BASE_URL={up.url}\nBACKENDS__UP__API_KEY=two\n")
            await sluice.client.post("/admin/reload")
            await sluice.client.post("/admin/breakers/up/m", json={"state": "open"})
            assert (await call(sluice.client, "up/m", stream=False)).outcome == "503"

    async def test_transitions_are_counted(self, sluice: Running) -> None:
        await trip(sluice, "large-500")
        labels = 'target="up/other",state="open",event="tripped"'
        text = (await sluice.client.get("/metrics")).text
        samples = [line for line in text.splitlines() if line.startswith("sluice_breaker_transitions_total")]
        assert len(samples) == 1
        assert all(label in samples[0] for label in labels.split(","))

    async def test_a_backend_is_switched_off_live(self, up: Upstream, start: Start) -> None:
        text = f"BACKENDS__UP__BASE_URL={up.url}\nOLLAMA_BASE_URL={up.url}\nMODEL_LARGE=ollama/large,up/large\n"
        async with start(text) as sluice:
            assert (await call(sluice.client, "auto", stream=False)).headers["x-sluice-target"] == "ollama/large"
            sluice.env.write_text(sluice.env.read_text() + "OLLAMA_ENABLED=false\n")
            await sluice.client.post("/admin/reload")
            assert (await call(sluice.client, "auto", stream=False)).headers["x-sluice-target"] == "up/large"


class TestCaller:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("fault", ["hang", "slow:60", "late:60"])
    async def test_upstream_is_closed_within_100_ms_of_the_callers_leaving(
        self, sluice: Running, up: Upstream, fault: str, *, stream: bool
    ) -> None:
        kept = records(sluice)
        left_at = await leave(sluice, up, f"up/m-{fault}", stream=stream)
        (attempt,) = await up.wait_for(lambda log: log[0].ended != "open")
        assert attempt.ended == "client_closed"
        assert attempt.closed_at is not None
        assert attempt.closed_at - left_at < 0.1
        assert_settled(sluice)
        assert [record.outcome for record in kept] == ["abandoned"]
        assert sluice.gateway.lanes.of(config(sluice), next(iter(sluice.gateway.lanes)).target).breaker.counts() == (
            0,
            0,
        )

    async def test_what_was_used_before_the_caller_left_is_recorded(self, sluice: Running, up: Upstream) -> None:
        kept = records(sluice)
        left_at = await leave(sluice, up, "up/m-stall:3", stream=True, chunks=3)
        (attempt,) = await up.wait_for(lambda log: log[0].ended != "open")
        assert attempt.closed_at is not None
        assert attempt.closed_at - left_at < 0.1
        assert [record.outcome for record in kept] == ["abandoned"]
        assert kept[0].usage is not None
        assert (kept[0].usage.completion, kept[0].usage.estimated) == (3, True)

    async def test_a_slow_reader_slows_the_upstream_down(self, up: Upstream, start: Start) -> None:
        async with start("MAX_ANSWER_MB=1000\nIDLE_TIMEOUT_S=60\n", up=up) as sluice:
            reader, writer = await connect(sluice)
            writer.write(request("up/m-endless", stream=True))
            await reader.read(1000)  # and then no more
            (attempt,) = await up.wait_for(lambda log: bool(log) and log[0].blocked)
            written = attempt.bytes
            assert written < 16 * 1024 * 1024
            await call(sluice.client, "up/well", stream=False)
            assert attempt.bytes == written
            writer.transport.abort()
            await up.wait_for(lambda log: log[0].ended == "client_closed")

    async def test_more_calls_than_slots_wait_in_a_bounded_line_then_503(self, up: Upstream, start: Start) -> None:
        async with start("SLOTS=4\nLINE=4\n", up=up) as sluice:
            many = [call(sluice.client, "up/m-late:0.5", stream=bool(n % 2)) for n in range(40)]
            got = await asyncio.gather(*many)
            outcomes = [each.outcome for each in got]
            assert (outcomes.count("whole"), outcomes.count("503")) == (8, 32)
            assert up.max_active == 4
            assert all(int(each.headers["retry-after"]) >= 1 for each in got if each.outcome == "503")
            served = sorted(each.wall_s for each in got if each.outcome == "whole")
            assert served[3] < served[-1]
            assert_settled(sluice)


def config(sluice: Running) -> Any:
    return sluice.gateway.live.current.backend_configs["up"]


async def connect(sluice: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(sluice.url.rsplit(":", 1)[1].partition("/")[0])
    return await asyncio.open_connection("127.0.0.1", port)


def request(model: str, *, stream: bool) -> bytes:
    body = orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def leave(sluice: Running, up: Upstream, model: str, *, stream: bool, chunks: int = 0) -> float:
    """Make a call, leave once the upstream has it and has said so much, and return when that was."""
    reader, writer = await connect(sluice)
    writer.write(request(model, stream=stream))
    await up.wait_for(lambda log: bool(log) and log[0].chunks >= chunks)
    if chunks:
        await reader.readuntil(ANSWER.split()[1].encode())
    writer.close()
    return time.monotonic()


async def test_a_lane_keeps_nothing_of_a_call_but_its_error(up: Upstream, start: Start) -> None:
    async with start("RETRIES=0\n", up=up) as sluice:
        await call(sluice.client, "up/m-500", stream=False)
        (lane,) = sluice.gateway.lanes
        assert lane.last_error is not None
        assert lane.last_error.__traceback__ is None


async def test_a_deadline_ends_a_stream_that_always_has_more(up: Upstream, start: Start) -> None:
    async with start("DEADLINE_S=1\nMODEL_LARGE=up/large\n", up=up) as sluice:
        begun = time.monotonic()
        answer = await sluice.chat("up/m-endless", stream=True)
        assert b'"error"' in answer.content
        assert b"[DONE]" not in answer.content
        assert time.monotonic() - begun < 10
