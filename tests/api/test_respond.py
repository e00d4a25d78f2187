from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.api import respond
from app.api.respond import SSEWriter, call_headers, error_headers, server_timing
from app.call import Target
from app.errors import CallerError, SluiceError
from app.trace import Attempt, Trace


class _Out:
    """What is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.changed = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self.messages.append(message)
        self.changed.set()

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.messages)

    async def until(self, size: int) -> None:
        async with asyncio.timeout(5):
            while len(self.messages) < size:
                self.changed.clear()
                await self.changed.wait()


async def test_silence_is_filled_with_comments_also_before_the_answer() -> None:
    out = _Out()
    writer = SSEWriter(out, list, keep_alive_s=0.01)
    await out.until(4)
    writer.close()
    assert out.messages[0]["status"] == 200
    assert (b"x-accel-buffering", b"no") in out.messages[0]["headers"]
    assert out.body == b": keep-alive\n\n" * (len(out.messages) - 1)
    assert writer.started
    await writer.finish(b"too late")
    assert out.messages[-1]["more_body"] is False
    assert b"too late" in out.messages[-1]["body"]


async def test_no_comment_comes_after_the_end() -> None:
    out = _Out()
    writer = SSEWriter(out, list, keep_alive_s=0.01)
    await writer.write(b"data: 1\n\n")
    await writer.finish(b"data: [DONE]\n\n")
    writer.close()
    await writer.write(b"never")
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, later.set)
    await later.wait()
    assert out.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert [each.get("more_body") for each in out.messages] == [None, True, False]


async def test_a_stream_whose_first_bytes_are_its_last_has_a_head() -> None:
    out = _Out()
    writer = SSEWriter(out, list)
    await writer.finish(b"data: [DONE]\n\n")
    writer.close()
    assert [each["type"] for each in out.messages] == ["http.response.start", "http.response.body"]


def test_server_timing_adds_up() -> None:
    trace = Trace(started_ns=0)
    for at, name in enumerate(["auth", "parse", "connect", "parse"], 1):
        trace.stage_at(name, at * 1_500_000)
    parts = dict(part.split(";dur=") for part in server_timing(trace).decode().split(", "))
    total = float(parts.pop("total"))
    assert total == 6.0
    assert sum(map(float, parts.values())) == pytest.approx(total)
    assert float(parts["parse"]) == 3.0


def test_headers_tell_who_was_tried() -> None:
    trace = Trace(attempts=[Attempt(Target("a", "x"), "timeout"), Attempt(Target("b", "y"), "ok")])
    headers = dict(call_headers(trace, Target("b", "y")))
    assert headers[b"x-sluice-attempts"] == b"a/x=timeout;b/y=ok"
    assert headers[b"x-sluice-target"] == b"b/y"


@pytest.mark.parametrize("model", ["a\r\nset-cookie: x", "a\x00b", "日本語", "é"])
def test_no_model_name_breaks_a_header(model: str) -> None:
    value = dict(call_headers(Trace(), Target("b", model)))[b"x-sluice-target"]
    assert not set(value) & set(b"\r\n\0")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SluiceError("m", retry_after_s=0.2), {b"retry-after": b"1"}),
        (SluiceError("m", retry_after_s=0.0), {b"retry-after": b"0"}),
        (CallerError("m", status=401), {b"www-authenticate": b"Bearer"}),
        (CallerError("m", status=413), {b"connection": b"close"}),
        (CallerError("m"), {}),
    ],
)
def test_headers_of_errors(error: SluiceError, expected: dict[bytes, bytes]) -> None:
    assert dict(error_headers(error)) == expected


def test_an_error_is_final_only_once_retries_are_spent() -> None:
    error = SluiceError("m")
    error.final = True
    assert dict(error_headers(error)) == {b"x-should-retry": b"false"}


def test_an_answer_that_lacks_nothing_is_the_same_object() -> None:
    message = {"role": "assistant", "content": "x", "refusal": None}
    choice = {"index": 0, "logprobs": None, "message": message, "finish_reason": "stop"}
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    assert respond.completed(body, "n") is body
    less = respond.completed({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}, "n")
    assert less["choices"] == [choice]
    assert (less["object"], less["model"]) == ("chat.completion", "n")
