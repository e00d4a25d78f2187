"""Batches from end to end, against a scripted upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.trace import Record
from tests.api.test_files import opened
from tests.batch.client import CHAT, begin, jsonl, line, over, rows, said, upload
from tests.conftest import Running, Start
from tests.sdk import sdk
from tests.upstream import Upstream


@pytest.fixture
async def kept(up: Upstream, start: Start, tmp_path: Path) -> AsyncIterator[Running]:
    text = f"DATA_DIR={tmp_path}/kept\nMODEL_EMBEDDING=up/e\nMODEL_MODERATION=up/mod\nRETRIES=0\n"
    async with start(text, up=up) as sluice:
        await opened(sluice)
        yield sluice


async def test_a_batch_through_the_sdk(kept: Running) -> None:
    records: list[Record] = []
    kept.gateway.hooks.append(records.append)
    async with sdk(kept) as ai:
        lines = [line(f"n{n}", f"SAY answer {n}") for n in range(20)]
        file = await ai.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        made = await ai.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        await over(kept.client, made.id)
        batch = await ai.batches.retrieve(made.id)
        assert (batch.status, batch.metadata, batch.error_file_id) == ("completed", {"a": "b"}, None)
        counts = batch.request_counts
        assert counts is not None
        assert (counts.total, counts.completed, counts.failed) == (20, 20, 0)
        assert batch.output_file_id is not None
        found = await rows(kept.client, batch.output_file_id)
        assert [(row["custom_id"], said(row)) for row in found] == [(f"n{n}", f"answer {n}") for n in range(20)]
        assert {row["response"]["status_code"] for row in found} == {200}
        ids = [row["response"]["request_id"] for row in found]
        assert sorted(ids) == sorted(record.request_id for record in records)
        assert len(set(ids)) == len({row["id"] for row in found}) == 20
        assert [each.id async for each in ai.batches.list(limit=1)] == [batch.id]
        output = await ai.files.retrieve(batch.output_file_id)
        assert (output.purpose, output.expires_at) == ("batch_output", output.created_at + 30 * 24 * 3600)


async def test_each_endpoint(kept: Running) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"model": "embedding", "input": "x"},
        "/v1/responses": {"model": "up/m", "input": "SAY x"},
        "/v1/moderations": {"input": "x"},
    }
    for endpoint, body in bodies.items():
        lines = [{"custom_id": "a", "method": "POST", "url": endpoint, "body": body}]
        batch = await over(kept.client, (await begin(kept.client, lines, endpoint=endpoint))["id"])
        assert batch["status"] == "completed", batch
        (row,) = await rows(kept.client, batch["output_file_id"])
        assert row["response"]["status_code"] == 200, row


async def test_lines_that_fail_go_to_the_error_file(kept: Running, up: Upstream) -> None:
    lines = [line("good"), line("bad", model="up/x-400filter"), line("no", messages=[]), line("good too")]
    batch = await over(kept.client, (await begin(kept.client, lines))["id"])
    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert [row["custom_id"] for row in await rows(kept.client, batch["output_file_id"])] == ["good", "good too"]
    bad, no = await rows(kept.client, batch["error_file_id"])
    assert bad["response"]["status_code"] == no["response"]["status_code"] == 400
    assert bad["response"]["body"]["error"]["code"] == "content_filter"
    assert no["response"]["body"]["error"]["param"] == "messages"
    assert bad["error"] is None


async def test_a_backend_that_is_busy_for_a_moment_costs_no_line(kept: Running, up: Upstream) -> None:
    up.script("m", ["503", "429", "500"])
    batch = await over(kept.client, (await begin(kept.client, [line("a"), line("b"), line("c")]))["id"])
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert len(up.of("m")) == 6


async def test_what_is_wrong_with_the_input_is_told(kept: Running, up: Upstream) -> None:
    batch = await over(kept.client, (await begin(kept.client, jsonl([line("a"), line("a")]) + b"{"))["id"])
    assert batch["status"] == "failed"
    found = [(each["code"], each["line"]) for each in batch["errors"]["data"]]
    assert found == [("duplicate_custom_id", 2), ("invalid_json_line", 3)]
    assert up.log == []


_WRONG: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"endpoint": "/v1/files"}, 400, "endpoint"),
    ({"endpoint": None}, 400, "endpoint"),
    ({"completion_window": "1"}, 400, "completion_window"),
    ({"completion_window": "31d"}, 400, "completion_window"),
    ({"input_file_id": "file-none"}, 404, "input_file_id"),
    ({"input_file_id": "other"}, 400, "input_file_id"),
    ({"metadata": {"a": 1}}, 400, "metadata.a"),
    ({"metadata": []}, 400, "metadata"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds"),
    ({"output_expires_after": 3}, 400, "output_expires_after.anchor"),
)


async def test_what_is_wrong_with_a_batch_is_named(kept: Running) -> None:
    file = (await upload(kept.client, b"x")).json()["id"]
    other = (await upload(kept.client, b"x", "user_data")).json()["id"]
    for change, status, param in _WRONG:
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"} | change
        if body["input_file_id"] == "other":
            body["input_file_id"] = other
        answer = await kept.client.post("/v1/batches", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), change


async def test_cancelling_keeps_what_was_answered(kept: Running, up: Upstream) -> None:
    lines = [line("a"), *(line(f"n{n}", model="up/m-hang") for n in range(30))]
    made = await begin(kept.client, lines)
    await up.wait_for(lambda log: sum(each.model == "m-hang" for each in log) >= 7)
    file = await kept.client.delete(f"/v1/files/{made['input_file_id']}")
    assert (file.status_code, file.json()["error"]["code"]) == (409, "file_in_use")
    stopped = await kept.client.post(f"/v1/batches/{made['id']}/cancel")
    assert stopped.json()["status"] in {"cancelling", "cancelled"}
    batch = await over(kept.client, made["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("cancelled", 1)
    assert [row["custom_id"] for row in await rows(kept.client, batch["output_file_id"])] == ["a"]
    await up.wait_for(lambda log: all(each.ended != "open" for each in log))
    assert len(up.log) <= 1 + 8
    again = await kept.client.post(f"/v1/batches/{made['id']}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "batch_is_over")


async def test_what_is_not_answered_in_time_is_told_line_by_line(kept: Running, up: Upstream) -> None:
    lines = [line("a"), line("b", model="up/m-hang"), line("c", model="up/m-hang")]
    made = await begin(kept.client, lines, completion_window="4s")
    batch = await over(kept.client, made["id"])
    assert (batch["status"], batch["request_counts"]) == ("expired", {"total": 3, "completed": 1, "failed": 2})
    assert [row["custom_id"] for row in await rows(kept.client, batch["output_file_id"])] == ["a"]
    errors = await rows(kept.client, batch["error_file_id"])
    assert [(row["custom_id"], row["error"]["code"], row["response"]) for row in errors] == [
        ("b", "batch_expired", None),
        ("c", "batch_expired", None),
    ]


async def test_the_lines_under_way_are_bounded_and_callers_come_first(
    up: Upstream, start: Start, tmp_path: Path
) -> None:
    text = f"DATA_DIR={tmp_path}/kept\nBATCH_PARALLEL=5\nBACKENDS__UP__SLOTS=4\nMODEL_LARGE=up/m-late:0.05\n"
    async with start(text, up=up) as sluice:
        await opened(sluice)
        made = await begin(sluice.client, [line(f"n{n}", model="up/m-late:0.05") for n in range(40)])
        await up.wait_for(lambda log: len(log) >= 3)
        lane = next(lane for lane in sluice.gateway.lanes if lane.target.model == "m-late:0.05")
        assert lane.gate.background <= 3
        waiting_before = up.max_active
        answers = await asyncio.gather(*(sluice.chat("up/m-late:0.05") for _ in range(4)))
        assert {answer.status_code for answer in answers} == {200}
        assert waiting_before <= 3
        assert max(float(_queued(answer.headers["server-timing"])) for answer in answers) < 200
        batch = await over(sluice.client, made["id"])
    assert batch["request_counts"]["completed"] == 40
    assert up.max_active <= 4


def _queued(timing: str) -> str:
    stages = dict(each.split(";dur=") for each in timing.split(", "))
    return stages.get("queue", "0")


async def test_another_tenants_batch_is_not_there(up: Upstream, start: Start, tmp_path: Path) -> None:
    one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    records: list[Record] = []
    async with start(f"API_KEYS=one,two\nDATA_DIR={tmp_path}/kept\n", up=up) as sluice:
        await opened(sluice)
        sluice.gateway.hooks.append(records.append)
        made = await begin(sluice.client, [line("a")], headers=one)
        for method, path in (("GET", ""), ("POST", "/cancel")):
            answer = await sluice.client.request(method, f"/v1/batches/{made['id']}{path}", headers=two)
            assert answer.status_code == 404
        assert (await sluice.client.get("/v1/batches", headers=two)).json()["data"] == []
        batch = await over(sluice.client, made["id"], headers=one)
        assert (await sluice.client.get(f"/v1/files/{batch['output_file_id']}", headers=two)).status_code == 404
        content = await sluice.client.get(f"/v1/files/{batch['output_file_id']}/content", headers=one)
        assert content.status_code == 200
    assert {record.tenant for record in records} == {
        made_by for made_by in {records[0].tenant} if made_by != "anonymous"
    }


async def test_a_process_that_leaves_hands_its_batches_over(up: Upstream, start: Start, tmp_path: Path) -> None:
    text = f"DATA_DIR={tmp_path}/kept\nBATCH_PARALLEL=2\n"
    async with start(text, up=up) as sluice:
        await opened(sluice)
        lines = [line("a"), line("b", model="up/m-hang:x1"), line("c", model="up/n-hang:x1"), line("d")]
        made = await begin(sluice.client, lines)
        await up.wait_for(lambda log: {each.model for each in log} >= {"m", "m-hang:x1", "n-hang:x1"})
    async with start(text, up=up) as sluice:
        await opened(sluice)
        batch = await over(sluice.client, made["id"])
        found = await rows(sluice.client, batch["output_file_id"])
    assert [row["custom_id"] for row in found] == ["a", "b", "c", "d"]
    assert len(up.of("m")) == 2
