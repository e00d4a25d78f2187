from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.conftest import Start
from tests.raw import answering
from tests.schema import events_of
from tests.upstream import Upstream

_KEY = "sk-secret/provider+key"
_HEAD = b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
_ROLE = _HEAD + b'{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
_END = _HEAD + b'{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def _settings(url: str) -> str:
    return f"BACKENDS__RAW__BASE_URL={url}\nMODEL_LARGE=raw/m\nRETRIES=0\n"


async def _streamed(start: Start, stream: bytes, **more: Any) -> list[Any]:
    async with answering(stream, "text/event-stream") as url, start(_settings(url)) as sluice:
        answer = await sluice.chat("auto", stream=True, **more)
        return [orjson.loads(each) for each in events_of(answer.content) if each != b"[DONE]"]


def _text(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


async def test_an_event_of_several_lines_is_handed_on_whole(start: Start) -> None:
    content = _HEAD.replace(b'"created"', b'\ndata: "created"') + b'\ndata: {"content":"x"},"finish_reason":null}]}\n\n'
    chunks = await _streamed(start, _ROLE + content + _END)
    assert _text(chunks) == "x"


@pytest.mark.parametrize(
    "odd",
    [
        b'"text"', b"[1]", b"null", b'{"choices":"x"}', b'{"choices":[null]}', b'{"choices":[{"index":[1]}]}',
        b'{"choices":[{"index":0,"delta":"x"}]}', b'{"choices":[{"finish_reason":{"a":1}}]}', b'{"choices":{"a":1}}',
        b'{"x_groq":"x","choices":[]}', b'{"usage":"x","choices":[]}', b"{", b"\xff",
        b'{"usage":{"prompt_tokens":"x","prompt_tokens_details":[1],"completion_tokens_details":7},"choices":[]}',
    ],
)  # fmt: skip
async def test_an_odd_event_does_not_break_the_stream(start: Start, odd: bytes) -> None:
    content = _HEAD + b'{"content":"x"},"finish_reason":null}]}\n\n'
    chunks = await _streamed(start, _ROLE + content + b"data: " + odd + b"\n\n" + _END)
    assert _text(chunks) == "x"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"[1]", b'[{"choices":[]}]', b'"x"', b"7", b"null", b"{}", b'{"choices":"x"}', b'{"choices":[]}',
        b'{"choices":[null]}', b'{"choices":[{"message":"x","finish_reason":"stop"}]}',
        b'{"choices":[{"message":{},"finish_reason":7}]}', b"\xff", b"",
    ],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ["chat/completions", "embeddings"])
async def test_an_odd_answer_is_the_backends_fault(start: Start, body: bytes, endpoint: str) -> None:
    async with answering(body) as url, start(_settings(url)) as sluice:
        call = {"model": "raw/m", "input": "x", "messages": [{"role": "user", "content": "x"}]}
        answer = await sluice.client.post(f"/v1/{endpoint}", json=call)
    assert answer.status_code == 502, answer.text


async def test_missing_fields_of_an_answer_are_filled_in(start: Start) -> None:
    body = {"choices": [{"message": {"content": "x", "reasoning": "r"}, "finish_reason": "stop"}], "x_new": [1]}
    async with answering(orjson.dumps(body)) as url, start(_settings(url)) as sluice:
        found = (await sluice.chat("auto")).json()
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "x", "refusal": None, "reasoning": "r"}
    assert (found["object"], found["model"], found["x_new"]) == ("chat.completion", "m", [1])


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["message", "code", "type", "param", "text"])
async def test_a_key_that_a_backend_echoes_never_leaks(start: Start, kind: str, where: str, *, stream: bool) -> None:
    def echo(head: bytes) -> bytes:
        key = head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()
        assert key == _KEY
        error = {"message": "wrong", where: f"the key {key} is wrong"}
        text = ("x" * (300 - 12) + key).encode()  # cut in the key's middle
        return text if where == "text" else orjson.dumps({"error": error})

    settings = f"BACKENDS__RAW__API_KEY={_KEY}\n"
    async with answering(echo, kind, "401 Unauthorized") as url, start(_settings(url) + settings) as sluice:
        answer = await sluice.chat("auto", stream=stream)
        ready = await sluice.client.get("/health/ready")
    assert answer.status_code == 401
    for text in (answer.text, str(answer.headers), ready.text):
        assert _KEY not in text
        assert _KEY[:8] not in text


async def test_a_key_in_an_error_in_mid_stream_never_leaks(start: Start) -> None:
    error = b'data: {"error":{"message":"bad ' + _KEY.encode() + b'"}}\n\n'
    stream = _ROLE + _HEAD + b'{"content":"x","tool_calls":[]},"finish_reason":null}]}\n\n' + error
    key = f"BACKENDS__RAW__API_KEY={_KEY}\n"
    async with answering(stream, "text/event-stream") as url, start(_settings(url) + key) as sluice:
        answer = await sluice.chat("auto", stream=True)
    assert b'"error"' in answer.content
    assert _KEY not in answer.text


async def test_a_plain_answer_to_a_streamed_call_is_an_error(start: Start) -> None:
    async with answering(b'{"choices":[]}') as url, start(_settings(url)) as sluice:
        answer = await sluice.chat("auto", stream=True)
    assert answer.status_code == 502


async def test_a_backend_that_asks_for_a_key_gets_it(start: Start) -> None:
    async with Upstream(key=_KEY) as up, start(f"MODEL_LARGE=up/m\nBACKENDS__UP__API_KEY={_KEY}\n", up=up) as sluice:
        assert (await sluice.chat("auto")).status_code == 200
        assert "content-type" in up.log[0].headers
        assert up.log[0].headers["user-agent"].startswith("sluice/")
