from __future__ import annotations

import asyncio
import gc
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.trace import Record
from tests.conftest import Running, Start
from tests.schema import events_of
from tests.upstream import Upstream


def _stages(answer: httpx.Response) -> dict[str, float]:
    parts = (part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    return {name: float(ms) for name, ms in parts}


def _chunks(answer: httpx.Response) -> list[Any]:
    return [orjson.loads(each) for each in events_of(answer.content) if each != b"[DONE]"]


async def test_plain_answer_is_relayed_with_the_backends_fields(sluice: Running, up: Upstream) -> None:
    answer = await sluice.chat("up/m-cost-xgroq")
    assert answer.status_code == 200
    assert answer.headers["x-sluice-target"] == "up/m-cost-xgroq"
    assert answer.headers["x-sluice-attempts"] == "up/m-cost-xgroq=ok"
    assert up.log[0].body["model"] == "m-cost-xgroq"
    assert answer.json()["x_groq"] == {"id": "req_1"}
    assert answer.json()["usage"]["cost"] > 0


async def test_a_role_says_which_and_unknown_fields_reach_the_backend(sluice: Running, up: Upstream) -> None:
    answer = await sluice.chat("large", x_new={"a": [1]}, reasoning_effort="low", top_k=3)
    assert answer.headers["x-sluice-role"] == "large"
    body = up.log[0].body
    assert (body["x_new"], body["reasoning_effort"], body["top_k"]) == ({"a": [1]}, "low", 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_stages_add_up_to_the_total(sluice: Running, *, stream: bool) -> None:
    answer = await sluice.chat("up/m-slow:0.05", stream=stream)
    stages = _stages(answer)
    total = stages.pop("total")
    assert total > 50
    assert abs(sum(stages.values()) - total) <= 0.05 * total
    assert {"auth", "parse", "classify", "plan", "queue", "connect", "first_token"} <= set(stages)


@pytest.mark.parametrize("how", ["header", "setting"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [False, True])
async def test_performance_is_in_the_body_or_the_last_chunk(
    up: Upstream, start: Start, how: str, *, stream: bool, usage: bool
) -> None:
    setting = "PERFORMANCE_IN_BODY=true\n" if how == "setting" else ""
    more: dict[str, Any] = {"stream": stream} | (
        {"stream_options": {"include_usage": True}} if usage and stream else {}
    )
    async with start(f"MODEL_LARGE=up/large\n{setting}", up=up) as sluice:
        headers = {"x-sluice-performance": "true"} if how == "header" else {}
        answer = await sluice.chat("auto", headers=headers, **more)
    chunks = _chunks(answer) if stream else [answer.json()]
    assert ["performance" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    told = chunks[-1]["performance"]
    assert {"promptBuildMs", "inferenceMs", "parseMs", "totalMs", "stages", "target", "attempts"} <= set(told)
    assert (
        abs(told["promptBuildMs"] + told["inferenceMs"] + told["parseMs"] - told["totalMs"]) <= 0.05 * told["totalMs"]
    )
    assert abs(sum(told["stages"].values()) - told["totalMs"]) <= 0.05 * told["totalMs"]
    assert (told["target"], told["attempts"]) == ("up/large", ["up/large=ok"])
    assert not stream or bool(chunks[-1].get("usage")) is usage


async def test_without_asking_there_is_no_performance(sluice: Running) -> None:
    assert "performance" not in (await sluice.chat("auto")).json()


@pytest.mark.parametrize(
    "fault", ["varyids", "norole", "fullrole", "crlf", "bytes:3", "orping", "xgroq", "nodone", "linger:9"]
)
async def test_odd_streams_come_out_straight(sluice: Running, fault: str) -> None:
    answer = await sluice.chat(f"up/m-{fault}", "SAY one two three", stream=True)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in _chunks(answer)) == "one two three"
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.headers["x-accel-buffering"], answer.headers["cache-control"]) == ("no", "no-cache")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("fault", ["", "-nousage", "-xgroq"])
async def test_usage_is_told_once_if_asked_for(sluice: Running, fault: str) -> None:
    asked = await sluice.chat(f"up/m{fault}", stream=True, stream_options={"include_usage": True})
    told = [chunk["usage"] for chunk in _chunks(asked) if not chunk["choices"]]
    assert len(told) == 1
    assert told[0]["completion_tokens"] > 0
    assert told[0].get("estimated", False) is (fault == "-nousage")


@pytest.mark.parametrize("fault", ["cuteof", "cut", "ollsilent", "ssemid", "stall"])
async def test_an_end_that_is_none_is_an_error_event(up: Upstream, start: Start, fault: str) -> None:
    async with start("MODEL_LARGE=up/large\nIDLE_TIMEOUT_S=0.2\nRETRIES=0\n", up=up) as sluice:
        call = {"type": "function", "function": {"name": "f"}}
        answer = await sluice.chat(f"up/m-{fault}:2", 'CALL f {"a": "bcdefgh"}', stream=True, tools=[call])
    *_, last = _chunks(answer)
    assert last["error"]["message"]
    assert b"[DONE]" not in answer.content


async def test_what_was_held_back_for_performance_comes_before_the_error(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nPERFORMANCE_IN_BODY=true\nRETRIES=0\n", up=up) as sluice:
        call = {"type": "function", "function": {"name": "f"}}
        answer = await sluice.chat("up/m-cut:3", 'CALL f {"a": "bcdefgh"}', stream=True, tools=[call])
    pieces = [
        chunk for chunk in _chunks(answer) if "error" not in chunk and "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert len(pieces) == up.log[0].chunks


@pytest.mark.parametrize(
    "body", [{"input": "x", "messages": "x"}, {"input": "x", "messages": [1], "tools": 3, "n": "x"}]
)
async def test_embeddings_pass_whatever_else_is_in_the_body(sluice: Running, up: Upstream, body: Any) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"model": "up/embedding", **body})
    assert answer.status_code == 200, answer.text
    assert up.log[0].path == "/v1/embeddings"


async def test_embeddings_do_not_stream(sluice: Running) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"model": "up/e", "input": "x", "stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


async def test_embeddings_without_a_role_say_what_to_set(sluice: Running) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 503
    assert "MODEL_EMBEDDING" in answer.json()["error"]["message"]


async def test_retry_after_is_passed_on(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/m-429:ra77\nRETRIES=0\n", up=up) as sluice:
        answer = await sluice.chat("auto")
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-should-retry"]) == (429, "77", "false")


async def test_our_own_refusals_leave_retries_to_the_client(sluice: Running) -> None:
    assert "x-should-retry" not in (await sluice.chat("groq/m")).headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions/"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
async def test_any_content_type_and_path(sluice: Running, path: str, kind: str) -> None:
    raw = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})
    assert (await sluice.client.post(path, content=raw, headers={"content-type": kind})).status_code == 200


async def test_the_callers_request_id_is_kept_where_it_is_harmless(sluice: Running) -> None:
    assert (await sluice.chat("auto", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for odd in ("a b", "x" * 129, "é".encode()):
        headers: Any = {"x-request-id": odd}
        assert (await sluice.chat("auto", headers=headers)).headers["x-request-id"].startswith("req_")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_with_a_form_type_and_expect_continue_and_2_mb(
    sluice: Running, up: Upstream, tmp_path: Path
) -> None:
    big = tmp_path / "body.json"
    big.write_bytes(orjson.dumps({"messages": [{"role": "user", "content": "x " * 1_000_000}]}))
    command = [
        "curl",
        "-sS",
        "-i",
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        f"@{big}",
        f"{sluice.url}/chat/completions",
    ]
    done = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(done.communicate(), 20)
    assert done.returncode == 0
    first, second, body = out.split(b"\r\n\r\n", 2)
    assert first.startswith(b"HTTP/1.1 100")
    assert second.startswith(b"HTTP/1.1 200")
    assert b"server-timing: auth;dur=" in second.lower()
    assert json.loads(body)["choices"]
    assert len(up.log[0].body["messages"][0]["content"]) == 2_000_000


async def test_preflight_of_a_browser(sluice: Running, start: Start) -> None:
    wanted = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-stainless-read-timeout"
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
    answer = await sluice.client.options(
        "/v1/chat/completions", headers={**headers, "access-control-request-headers": wanted}
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in {"*", "https://app.example"}
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in wanted.split(","))
    call = await sluice.chat("auto", headers={"origin": "https://app.example"})
    assert "x-request-id" in call.headers["access-control-expose-headers"]


async def test_preflight_of_a_stranger_is_refused_in_openais_shape(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nCORS_ORIGINS=https://app.example\n", up=up) as sluice:
        headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answer = await sluice.client.options("/v1/chat/completions", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers


async def test_the_record_tells_why_and_quotes_nothing_of_the_prompt(sluice: Running) -> None:
    heard: list[Record] = []
    sluice.gateway.hooks.append(heard.append)
    assert (await sluice.chat("auto", "Write a Python function that sorts my secret list.")).status_code == 200
    (record,) = heard
    assert record.verdict is not None
    assert any("Write" in reason for reason in record.verdict.reasons)
    assert "asks for code" in record.why
    assert len(record.why) > len(record.verdict.reasons)
    assert not any("Python" in each or "secret" in each for each in record.why)


async def test_calls_leave_nothing_to_the_garbage_collector(sluice: Running) -> None:
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for stream in (False, True):
            for _ in range(3):
                assert (await sluice.chat("up/m", stream=stream)).status_code == 200
        gc.collect()
        left = {type(each).__name__ for each in gc.garbage} & {"Call", "ClientWatch", "Exchange", "SSEWriter", "Trace"}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == set()
