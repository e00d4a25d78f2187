"""Ollama's own endpoints: /api/chat in NDJSON, /api/tags, /api/show, /api/generate (loads), /api/pull, /api/version."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import http, shapes
from tests.upstream.answers import Reply, reply_to
from tests.upstream.play import Exchange, Stream, answer_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.upstream.faults import Fault
    from tests.upstream.server import Upstream

    Answer = Callable[[Exchange], Awaitable[None]]


def route(up: Upstream, method: str, path: str, body: Any) -> Answer | None:
    """Return the answer to a request that is Ollama's own, else None."""
    match method, path:
        case "GET", "/api/version":
            return lambda x: answer_json(x, {"version": "0.14.0"})
        case "GET", "/api/tags":
            cards = [_card(model) for model in up.models]
            return lambda x: answer_json(x, {"models": cards})
        case "POST", "/api/pull" if isinstance(body, dict):
            return lambda x: _pull(up, x)
        case "POST", "/api/generate" if isinstance(body, dict) and not body.get("prompt"):
            return lambda x: answer_json(x, _line(x, "", done=True) | {"done_reason": "load", "response": ""})
        case "POST", "/api/chat" if isinstance(body, dict):
            return answer_native
    return None


def _card(model: str) -> dict[str, Any]:
    name = model if ":" in model else f"{model}:latest"
    details = {"format": "gguf", "family": "scripted", "parameter_size": "7B", "quantization_level": "Q4_K_M"}
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-11-01T00:00:00Z",
        "size": 1,
        "digest": "0",
        "details": details,
    }


async def _pull(up: Upstream, x: Exchange) -> None:
    """Download in four steps; a fault ``cut:K`` fails after K of them."""
    model = str(x.body.get("model", ""))
    await x.open(200, [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked")])
    fails_after = x.faults.number("cut", 0, -1)
    pace_s = x.faults.number("pace", 20) / 1000
    for step in range(4):
        if step == fails_after:
            await _say(x, {"error": "pull model manifest: file does not exist"})
            await x.write(http.LAST_CHUNK)
            return
        if pace_s:
            await x.conn.pause(pace_s)
        await _say(x, {"status": "pulling 0123abcd", "digest": "sha256:0", "total": 4, "completed": step + 1})
    up.models = (*up.models, model)
    await _say(x, {"status": "success"})
    await x.write(http.LAST_CHUNK)


async def answer_native(x: Exchange) -> None:
    """Answer /api/chat, which streams unless told otherwise."""
    options = x.body.get("options") or {}
    asked = {**x.body, "max_tokens": options.get("num_predict")}
    if x.body.get("format") is not None:
        form = x.body["format"]
        schema = {"type": "json_schema", "json_schema": {"schema": form}}
        asked["response_format"] = {"type": "json_object"} if form == "json" else schema
    reply = reply_to(asked, x.faults, friendly=x.friendly)
    stream = NativeStream(x, shapes.Meta(str(x.body.get("model", ""))), reply)
    if x.body.get("stream", True):
        await stream.play()
        return
    await answer_json(x, stream.last() | {"message": _said(reply)})


def _said(reply: Reply) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": reply.content or ""}
    if reply.reasoning:
        said["thinking"] = reply.reasoning
    if reply.calls:
        said["tool_calls"] = [
            {"function": {"name": call.name, "arguments": orjson.loads(call.arguments or "{}")}} for call in reply.calls
        ]
    return said


def _line(x: Exchange, content: str, *, done: bool = False) -> dict[str, Any]:
    return {
        "model": str(x.body.get("model", "")),
        "created_at": datetime.now(UTC).isoformat(),
        "message": {"role": "assistant", "content": content},
        "done": done,
    }


async def _say(x: Exchange, value: dict[str, Any]) -> None:
    await x.write(http.chunk(orjson.dumps(value) + b"\n"))


class NativeStream(Stream):
    """One answer as JSON lines; the last one says how long each part took, in nanoseconds, as it really was."""

    def __init__(self, x: Exchange, meta: shapes.Meta, reply: Reply) -> None:
        super().__init__(x, meta, reply)
        self._began = self._first = time.perf_counter_ns()

    async def play(self) -> None:
        x = self.x
        await x.open(200, [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked")])
        await self._slow_start()
        self._first = time.perf_counter_ns()
        for delta in self._deltas():
            await self._middle()
            await self._content(delta)
        await self._middle(last=True)
        if self.reply.calls:
            line = _line(x, "")
            line["message"]["tool_calls"] = _said(self.reply)["tool_calls"]
            await _say(x, line)
        await _say(x, self.last())
        await x.write(http.LAST_CHUNK)

    async def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:  # noqa: ARG002 - Stream's
        if "tool_calls" in delta:
            return  # in one piece, at the end
        line = _line(self.x, delta.get("content", ""))
        if delta.get("reasoning_content"):
            line["message"]["thinking"] = delta["reasoning_content"]
        await _say(self.x, line)

    async def error(self, fault: Fault) -> None:
        await _say(self.x, {"error": "llama runner process has terminated"})
        await self.end(fault)

    def last(self) -> dict[str, Any]:
        """Return the line that ends the answer."""
        now = time.perf_counter_ns()
        return _line(self.x, "", done=True) | {
            "done_reason": self.reply.finish if self.reply.finish != "tool_calls" else "stop",
            "total_duration": now - self._began,
            "load_duration": 0,
            "prompt_eval_count": self.reply.prompt_tokens,
            "prompt_eval_duration": self._first - self._began,
            "eval_count": self.reply.completion_tokens,
            "eval_duration": now - self._first,
        }
