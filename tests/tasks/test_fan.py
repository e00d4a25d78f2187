"""Lists worked through in parts: so many at once, failed parts again, every item accounted for."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from app.call import Target
from app.errors import SluiceError
from app.tasks.context import Done
from app.tasks.fan import Part, _merged
from app.trace import Trace, Usage
from tests.tasks.case import ROLES, call, refused, stream

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.upstream import Upstream

_POSTS = [{"telegram_message_id": number, "text": f"Post no. {number} of many."} for number in range(200)]
_MAP = {"query": "What is said about backups?", "posts": _POSTS}
_ONCE = "RETRIES=0\n"
"""A failed attempt is a failed part: its retry is the list's, not the target's."""


async def test_200_posts_and_one_part_that_fails_twice(up: Upstream, start: Start) -> None:
    up.mark("Post no. 47 of many", ["500", "500"])
    async with start(f"{ROLES}{_ONCE}MODEL_ANALYSIS=up/analysis-full-slow:0.05\n", up=up) as sluice:
        told = await call(sluice, "task/map", _MAP)
    items = told.sluice["items"]
    assert items == {
        "total": 200,
        "done": 200,
        "failed": [],
        "left_out": [],
        "parts": 10,
        "parts_retried": [3],
    }
    assert up.max_active <= 5
    assert [attempt.status for attempt in up.log].count(500) == 2
    assert len(up.log) == 12
    value = told.json
    assert set(value) == {"relevant_posts", "chunk_summary"}
    ranks = [each["relevance"] for each in value["relevant_posts"]]
    assert ranks == sorted(ranks, key=["HIGH", "MEDIUM", "LOW"].index)
    assert len({each["telegram_message_id"] for each in value["relevant_posts"]}) == len(ranks)
    asked = [post for attempt in up.log if attempt.status == 200 for post in _ids_of(attempt.body)]
    assert sorted(asked) == list(range(200))


def _ids_of(body: Any) -> list[int]:
    lines = body["messages"][-1]["content"].splitlines()
    return [json.loads(line)["telegram_message_id"] for line in lines if line.startswith('{"telegram')]


async def test_a_part_that_stays_broken_is_listed_and_never_dropped(up: Upstream, start: Start) -> None:
    up.mark("Post no. 47 of many", ["500"] * 99)
    async with start(f"{ROLES}{_ONCE}", up=up) as sluice:
        told = await call(sluice, "task/map", _MAP)
        failed = list(range(40, 60))
        assert told.sluice["items"]["failed"] == failed
        assert told.sluice["items"]["done"] == 180
        assert told.json["failed_chunks"][0]["ids"] == failed
        assert told.json["failed_chunks"][0]["error"]
        assert sum(attempt.status == 500 for attempt in up.log) == 3


async def test_where_every_part_fails_the_error_is_the_backends(up: Upstream, start: Start) -> None:
    async with start(f"{_ONCE}MODEL_ANALYSIS=up/no-400filter\n", up=up) as sluice:
        status, error = await refused(sluice, "task/map", _MAP)
        assert (status, error["code"]) == (400, "content_filter")


async def test_progress_is_told_by_comments_or_by_events(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        text = (await sluice.chat("task/map", json.dumps(_MAP), stream=True)).text
        comments = [json.loads(line[2:]) for line in text.splitlines() if line.startswith(": {")]
        assert [each["progress"]["ended"] for each in comments] == list(range(1, 11))
        _, chunks = await stream(sluice, "task/map", _MAP, extra_headers={"x-sluice-progress": "events"})
        told = [chunk for chunk in chunks if not chunk.choices]
        assert len(told) == 10
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_so_many_at_once_and_a_caller_that_leaves_stops_them(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_ANALYSIS=up/hang\n", up=up) as sluice:
        work = asyncio.create_task(sluice.chat("task/map", json.dumps(_MAP)))
        await up.wait_for(lambda log: len(log) == 5)
        work.cancel()
        await up.wait_for(lambda log: all(each.ended == "client_closed" for each in log))
        assert len(up.log) == 5


async def test_scoring_is_bounded_by_three_settings(up: Upstream, start: Start) -> None:
    posts = [{"id": f"p{number}", "text": f"text {number}"} for number in range(30)]
    settings = "MEDIUM_SCORE_THRESHOLD=0.3\nMEDIUM_MAX_SELECTED_POSTS=2\nMEDIUM_MAX_POSTS=25\nMAP_MAX_PARALLEL=2\n"
    async with start(f"{ROLES}{settings}MODEL_ANALYSIS=up/analysis-full-slow:0.02\n", up=up) as sluice:
        asked = {"query": "Which?", "posts": posts}
        told = await call(sluice, "task/medium-scoring", asked, response_format={"type": "json_object"})
        value = told.json
        assert [each["id"] for each in value["scores"]] == [f"p{number}" for number in range(25)]
        assert value["left_out"] == told.sluice["items"]["left_out"] == [f"p{number}" for number in range(25, 30)]
        assert value["threshold"] == 0.3
        best = sorted(value["scores"], key=lambda each: -each["score"])[:2]
        assert value["selected"] == [each["id"] for each in best]
        assert all(each["score"] >= 0.3 for each in best)
        assert {each["id"] for each in value["scores"] if each["selected"]} == set(value["selected"])
        assert up.max_active <= 2
        text = (await call(sluice, "task/medium-scoring", asked)).text
        assert text.startswith(f"Selected IDs: {', '.join(value['selected'])}\n")
        assert text.count("=== POST ") == 25


async def test_two_posts_with_one_id_are_refused(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        twice = {"query": "q", "posts": [{"telegram_message_id": 1, "text": "a"}] * 2}
        status, error = await refused(sluice, "task/map", twice)
        assert (status, error["param"]) == (400, "inputs.posts[1].telegram_message_id")


async def test_one_client_call_is_one_record(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        records: list[Any] = []
        sluice.gateway.hooks.append(records.append)
        await call(sluice, "task/map", _MAP)
        (record,) = records
        assert (record.task, len(record.attempts), record.outcome) == ("map", 10, "ok")
        assert record.prompt_hash == sluice.gateway.library.current.tasks["map"].digest
        assert {attempt.result for attempt in record.attempts} == {"ok"}
        assert record.usage.completion == sum(attempt.usage.completion for attempt in record.attempts)
        assert sum(record.stages_ms.values()) == pytest.approx(record.total_ms, abs=0.1)


def _done(value: Any) -> Done:
    return Done(value, Target("up", "m"), Usage(prompt=1, completion=2))


def test_merging() -> None:
    parts = [
        Part((1, 2), Trace(), _done({"list": [1], "text": "a", "n": 1})),
        Part((3,), Trace(), None, (SluiceError("no"),)),
        Part((4,), Trace(), _done({"list": [4], "text": "b", "n": 2})),
    ]
    merged = _merged(parts, [5])
    failed = [{"ids": [3], "error": "no"}]
    assert merged.value == {"list": [1, 4], "text": "a\nb", "n": 1, "failed_chunks": failed, "left_out": [5]}
    assert merged.usage == Usage(prompt=2, completion=4)
    assert merged.told["items"]["total"] == 5
    assert _merged([Part((1,), Trace(), _done("x")), Part((2,), Trace(), _done("y"))], []).value == "x\n\ny"


async def test_headers_and_metrics_of_a_long_list(up: Upstream, start: Start) -> None:
    posts = [{"telegram_message_id": number, "text": "t"} for number in range(1000)]
    async with start(ROLES, up=up) as sluice:
        told = await call(sluice, "task/map", {"query": "q", "posts": posts})
        assert told.headers["x-sluice-attempts"].endswith(";and 10 more")
        await refused(sluice, "task/map", "no posts")
        metrics = (await sluice.client.get("/metrics")).text
    assert 'sluice_task_calls_total{outcome="ok",task="map"} 1.0' in metrics
    assert 'sluice_task_calls_total{outcome="error",task="map"} 1.0' in metrics
    assert "sluice_retries_total{" not in metrics
