"""The answer cache end to end: what is answered from memory, what is not, and what identical calls share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.guard.redis_server import RedisServer
from tests.schema import events_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from app.trace import Record
    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_TOOL = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def _cache(answer: httpx.Response) -> str:
    return answer.headers["x-sluice-cache"]


def _text(answer: httpx.Response) -> str:
    chunks = [orjson.loads(each) for each in events_of(answer.content) if each != b"[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.fixture
def records(sluice: Running) -> list[Record]:
    found: list[Record] = []
    sluice.gateway.hooks.append(found.append)
    return found


async def test_a_deterministic_call_is_answered_once(sluice: Running, up: Upstream, records: list[Record]) -> None:
    answers = [await sluice.chat("large", temperature=0, user=user) for user in ("a", "b")]
    assert [_cache(each) for each in answers] == ["miss", "hit"]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["x-sluice-target"] == "up/large"
    assert "x-sluice-attempts" not in answers[1].headers
    assert len(up.log) == 1
    told = (await sluice.client.get("/metrics")).text
    assert 'sluice_answer_cache_total{outcome="hit"} 1.0' in told
    assert 'sluice_answer_cache_total{outcome="miss"} 1.0' in told
    assert [(record.cache, len(record.attempts), record.outcome) for record in records] == [
        ("miss", 1, "ok"),
        ("hit", 0, "ok"),
    ]


async def test_what_is_not_deterministic_or_not_wanted_is_asked_again(sluice: Running, up: Upstream) -> None:
    for more in ({}, {"temperature": 0.7}, {"temperature": 0, "headers": {"x-sluice-no-cache": "true"}}):
        answers = [await sluice.chat("large", **more) for _ in range(2)]
        assert [_cache(each) for each in answers] == ["off", "off"]
    assert len(up.log) == 6


@pytest.mark.parametrize(("setting", "seen"), [("off", ["off"] * 2), ("all", ["miss", "hit"])])
async def test_the_setting_decides(up: Upstream, start: Start, setting: str, seen: list[str]) -> None:
    async with start(f"MODEL_LARGE=up/large\nCACHE={setting}\n", up=up) as sluice:
        answers = [await sluice.chat("large", temperature=0.7 if setting == "all" else 0) for _ in range(2)]
    assert [_cache(each) for each in answers] == seen


@pytest.mark.parametrize("text", ["SAY one two three", 'CALL f {"a": "bcdefgh", "n": [1, 2]}'])
@pytest.mark.parametrize("first_streams", [False, True])
async def test_plain_and_streamed_calls_share_answers_tools_included(
    sluice: Running, up: Upstream, text: str, *, first_streams: bool
) -> None:
    more: dict[str, Any] = {"temperature": 0, "tools": _TOOL}
    first = await sluice.chat("up/m", text, stream=first_streams, **more)
    streamed = await sluice.chat("up/m", text, stream=True, stream_options={"include_usage": True}, **more)
    plain = await sluice.chat("up/m", text, **more)
    assert [_cache(each) for each in (first, streamed, plain)] == ["miss", "hit", "hit"]
    assert len(up.log) == 1
    message = plain.json()["choices"][0]["message"]
    chunks = [orjson.loads(each) for each in events_of(streamed.content)[:-1]]
    if text.startswith("SAY"):
        assert (_text(streamed), message["content"]) == ("one two three", "one two three")
    else:
        parts = [
            part
            for chunk in chunks
            if chunk["choices"]
            for part in chunk["choices"][0]["delta"].get("tool_calls") or ()
        ]
        arguments = "".join(part["function"].get("arguments") or "" for part in parts)
        assert arguments == message["tool_calls"][0]["function"]["arguments"] == '{"a": "bcdefgh", "n": [1, 2]}'
        assert parts[0]["function"]["name"] == message["tool_calls"][0]["function"]["name"] == "f"
    assert plain.json()["usage"]["completion_tokens"] == chunks[-1]["usage"]["completion_tokens"] > 0


async def test_embeddings_are_kept(sluice: Running, up: Upstream) -> None:
    body = {"model": "up/e", "input": ["one", "two"]}
    answers = [await sluice.client.post("/v1/embeddings", json=body) for _ in range(2)]
    other = await sluice.client.post("/v1/embeddings", json=body | {"dimensions": 8})
    assert [_cache(each) for each in (*answers, other)] == ["miss", "hit", "miss"]
    assert answers[0].content == answers[1].content


async def test_a_changed_role_does_not_serve_the_old_models_answer(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/old\n", up=up) as sluice:
        await sluice.chat("large", temperature=0)
        sluice.env.write_text(sluice.env.read_text().replace("up/old", "up/new"))
        sluice.gateway.reload()
        changed = await sluice.chat("large", temperature=0)
        sluice.env.write_text(sluice.env.read_text().replace("up/new", "up/old"))
        sluice.gateway.reload()
        back = await sluice.chat("large", temperature=0)
    assert [(_cache(each), each.headers["x-sluice-target"]) for each in (changed, back)] == [
        ("miss", "up/new"),
        ("hit", "up/old"),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("up/m-500", {}),
        ("up/m-cut:2", {}),
        ("up/m", {"max_tokens": 2}),
        ("large", {"text": 'SCRIPT {"say": "I cannot help with that.", "finish": "stop"}'}),
    ],
)
async def test_errors_and_weak_and_truncated_answers_are_not_kept(
    up: Upstream, start: Start, model: str, more: dict[str, Any], *, stream: bool
) -> None:
    async with start("MODEL_LARGE=up/large\nON_WEAK=serve\nRETRIES=0\n", up=up) as sluice:
        for _ in range(2):
            answer = await sluice.chat(model, temperature=0, stream=stream, **more)
            assert _cache(answer) == "miss"


async def test_what_a_stand_in_says_is_not_kept(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/m-503,up/spare\nRETRIES=0\n", up=up) as sluice:
        answers = [await sluice.chat("large", temperature=0) for _ in range(2)]
    assert [(_cache(each), each.headers["x-sluice-target"]) for each in answers] == [("miss", "up/spare")] * 2


async def test_tenants_do_not_see_each_others_answers(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nAPI_KEYS=one,two\n", up=up) as sluice:
        seen = [
            _cache(await sluice.chat("large", temperature=0, headers={"authorization": f"Bearer {key}"}))
            for key in ("one", "two", "one")
        ]
    assert seen == ["miss", "miss", "hit"]


@pytest.mark.parametrize("stream", [False, True])
async def test_identical_concurrent_calls_share_one_upstream_call(
    sluice: Running, up: Upstream, records: list[Record], *, stream: bool
) -> None:
    text = "SAY one two three four"
    calls = [sluice.chat("up/m-slow:0.3", text, temperature=0, stream=stream) for _ in range(20)]
    answers = await asyncio.gather(*calls)
    assert sorted(_cache(each) for each in answers) == ["hit"] * 19 + ["miss"]
    assert {each.content for each in answers} == {answers[0].content}
    assert len(up.log) == 1
    assert sorted(len(record.attempts) for record in records) == [0] * 19 + [1]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_caller_leaves_and_the_others_are_served(
    sluice: Running, up: Upstream, records: list[Record], *, stream: bool
) -> None:
    def ask() -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(sluice.chat("up/m-slow:0.5", "SAY one two", temperature=0, stream=stream))

    first = ask()
    await up.wait_for(lambda log: len(log) == 1)
    others = [ask() for _ in range(3)]
    async with asyncio.timeout(5):
        while sluice.gateway.inflight < 4:  # noqa: ASYNC110 - calls on their way through the server
            await asyncio.sleep(0.005)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert {each.status_code for each in answers} == {200}
    assert len(up.log) == 1
    paid = {record.outcome: 0 for record in records}
    for record in records:
        paid[record.outcome] += len(record.attempts)
    assert paid == {"abandoned": 0, "ok": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_when_all_callers_leave_upstream_stops(sluice: Running, up: Upstream, *, stream: bool) -> None:
    calls = [asyncio.create_task(sluice.chat("up/m-slow:30", temperature=0, stream=stream)) for _ in range(3)]
    await up.wait_for(lambda log: len(log) == 1)
    async with asyncio.timeout(5):
        while sluice.gateway.inflight < 3:  # noqa: ASYNC110 - calls on their way through the server
            await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await up.wait_for(lambda log: log[0].ended == "client_closed")
    again = await sluice.chat("up/m", temperature=0)
    assert again.status_code == 200


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.kill()


async def test_a_second_gateway_finds_it_in_redis_and_a_lost_redis_costs_no_call(
    up: Upstream, start: Start, redis: RedisServer
) -> None:
    async with start(f"MODEL_LARGE=up/large\nREDIS_URL={redis.url}\n", up=up) as sluice:
        assert _cache(await sluice.chat("large", temperature=0)) == "miss"
    async with start(f"MODEL_LARGE=up/large\nREDIS_URL={redis.url}\n", up=up) as sluice:
        assert _cache(await sluice.chat("large", temperature=0)) == "hit"
        redis.kill()
        assert _cache(await sluice.chat("large", temperature=0)) == "hit"
        other = await sluice.chat("large", "something else", temperature=0)
        assert (other.status_code, _cache(other)) == (200, "miss")
        async with asyncio.timeout(10):
            while (await sluice.client.get("/health/ready")).json()["status"] != "degraded":  # noqa: ASYNC110 - HTTP
                await asyncio.sleep(0.05)
