"""Anthropic's wire: ``/v1/messages`` and ``/v1/messages/count_tokens``, as strict as the real one.

A refusal of what the wire does not take is part of the play: unknown fields, sampling parameters in the newest version,
empty texts, results without their calls, thinking that was changed.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import shapes
from tests.upstream.answers import PrefillRefused, Reply, reply_to, words
from tests.upstream.play import Exchange, Stream, answer_json, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream.faults import Fault

_FIELDS = {
    "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "metadata", "tools", "tool_choice",
    "thinking", "output_config", "cache_control", "service_tier", "container", "mcp_servers",
}  # fmt: skip
_SAMPLING = {"temperature", "top_p", "top_k"}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_SERVER_TOOL = re.compile(r"^(web_search|code_execution)_\d{8}$")


class Refused(Exception):  # noqa: N818 - an event
    """A request that the wire does not take."""


def told(kind: str, message: str) -> dict[str, Any]:
    """Return an error in this wire's shape."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}


async def answer(x: Exchange) -> None:
    """Answer a message."""
    try:
        _check(x)
        body = _as_chat(x.body)
        reply = reply_to(body, x.faults, friendly=x.friendly)
    except Refused as refused:
        await fail(x, shapes.Failure(400, told("invalid_request_error", str(refused))))
        return
    except PrefillRefused:
        text = "Prefilling assistant messages is not supported for this model."
        await fail(x, shapes.Failure(400, told("invalid_request_error", text)))
        return
    if x.body.get("stream") is True:
        await MessageStream(x, shapes.Meta(str(x.body["model"])), reply).play()
        return
    message = _head(x, reply) | {"content": list(_blocks(x, reply)), **_stop(reply)}
    await answer_json(x, message | {"usage": _usage(reply)})


async def count_tokens(x: Exchange) -> None:
    """Count the words of a request as its tokens."""
    body = _as_chat({"max_tokens": 1, **x.body})
    await answer_json(x, {"input_tokens": reply_to(body, x.faults).prompt_tokens})


# -- what is taken -----------------------------------------------------------------------------------------------------


def _check(x: Exchange) -> None:
    body, version = x.body, x.attempt.headers.get("anthropic-version")
    if version is None:
        raise Refused("anthropic-version: header is required")
    taken = _FIELDS | (_SAMPLING if version < "2026-10-21" else set())
    for name in body:
        if name not in taken:
            raise Refused(f"{name}: Extra inputs are not permitted")
    if not isinstance(body.get("max_tokens"), int):
        raise Refused("max_tokens: Field required")
    _check_messages(body)


def _check_messages(body: dict[str, Any]) -> None:
    calls: set[str] = set()
    for number, message in enumerate(body["messages"]):
        if message["role"] not in {"user", "assistant"}:
            raise Refused(f"messages.{number}.role: Input should be 'user' or 'assistant'")
        for block in _list(message["content"]):
            _check_block(f"messages.{number}", block, calls)
    last = body["messages"][-1]
    if last["role"] == "assistant" and _text(last["content"]) != _text(last["content"]).rstrip():
        raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _check_block(path: str, block: dict[str, Any], calls: set[str]) -> None:
    kind = block["type"]
    if kind == "text" and not block["text"]:
        raise Refused(f"{path}: text content blocks must be non-empty")
    if kind == "tool_use":
        calls.add(block["id"])
    if kind == "tool_result" and block["tool_use_id"] not in calls:
        raise Refused(f"{path}: unexpected tool_use_id {block['tool_use_id']}")
    if kind == "thinking" and block["signature"] != signature(block["thinking"]):
        raise Refused(f"{path}: Invalid signature in thinking block")


def signature(thinking: str) -> str:
    """Return what signs a thought."""
    return f"signed-{zlib.crc32(thinking.encode()):08x}"


def _list(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(content: Any) -> str:
    return "".join(block.get("text", "") for block in _list(content))


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return as much of a chat as the script reads."""
    messages: list[dict[str, Any]] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _text(body["system"])})
    for message in body["messages"]:
        results = [block for block in _list(message["content"]) if block["type"] == "tool_result"]
        messages += [{"role": "tool", "content": _text(block.get("content") or "")} for block in results]
        text = _text(message["content"])
        if text or not messages or messages[-1]["role"] != "tool":
            messages.append({"role": message["role"], "content": text})
    chat: dict[str, Any] = {"model": body["model"], "messages": messages, "max_tokens": body["max_tokens"]}
    chat["tools"] = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
        for tool in body.get("tools", ())
        if "input_schema" in tool
    ]
    choice = body.get("tool_choice") or {}
    named = {"type": "function", "function": {"name": choice.get("name")}}
    chat["tool_choice"] = {"any": "required", "tool": named, "none": "none"}.get(choice.get("type", ""))
    form = (body.get("output_config") or {}).get("format")
    if form:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": form["schema"]}}
    return chat


# -- what is said ------------------------------------------------------------------------------------------------------


def _head(x: Exchange, reply: Reply) -> dict[str, Any]:
    return {
        "id": "msg_scripted", "type": "message", "role": "assistant", "model": str(x.body["model"]), "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": _usage(reply) | {"output_tokens": 1},
    }  # fmt: skip


def _usage(reply: Reply) -> dict[str, Any]:
    usage = {
        "input_tokens": reply.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": reply.completion_tokens,
    }
    return usage | reply.usage


def _stop(reply: Reply) -> dict[str, Any]:
    if reply.finish.startswith("sequence="):
        return {"stop_reason": "stop_sequence", "stop_sequence": reply.finish.removeprefix("sequence=")}
    return {"stop_reason": _STOPS.get(reply.finish, reply.finish), "stop_sequence": None}


def _blocks(x: Exchange, reply: Reply) -> Iterator[dict[str, Any]]:
    for tool in x.body.get("tools", ()):
        if _SERVER_TOOL.match(tool.get("type") or ""):
            yield {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    if reply.reasoning is not None:
        yield {"type": "thinking", "thinking": reply.reasoning, "signature": signature(reply.reasoning)}
    if reply.content or reply.refusal:
        yield {"type": "text", "text": reply.content or reply.refusal}
    for number, call in enumerate(reply.calls):
        given = orjson.loads(call.arguments or "{}")
        yield {"type": "tool_use", "id": f"toolu_{number}", "name": call.name, "input": given}


class MessageStream(Stream):
    """One answer as this wire's events."""

    async def tell(self, kind: str, **more: Any) -> None:
        """Send one event."""
        event = {"type": kind, **more}
        await self.x.event(b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n")

    async def play(self) -> None:
        x = self.x
        await x.open(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        await self.tell("message_start", message=_head(x, self.reply))
        await self.tell("ping")
        await self._slow_start()
        for index, block in enumerate(_blocks(x, self.reply)):
            await self._block(index, block)
        await self._middle(last=True)
        await self._finish()

    async def _block(self, index: int, block: dict[str, Any]) -> None:
        bare = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
        empty: dict[str, Any] = bare.get(block["type"]) or {"input": {}}
        await self.tell("content_block_start", index=index, content_block=block | empty)
        for delta in _deltas(block):
            await self._middle()
            if (pace := self.x.faults.number("pace", 20)) > 0:
                await self.x.conn.pause(pace / 1000)
            self.x.attempt.chunks += 1
            await self.tell("content_block_delta", index=index, delta=delta)
        await self.tell("content_block_stop", index=index)

    async def _finish(self) -> None:
        usage = {"output_tokens": self.reply.completion_tokens}
        await self.tell("message_delta", delta=_stop(self.reply), usage=usage)
        if not self.x.faults.find("nodone", "nodoneopen"):
            await self.tell("message_stop")
        await self._end_of_body()

    async def error(self, fault: Fault) -> None:
        await self.x.event(b"event: error\ndata: " + orjson.dumps(told("overloaded_error", "Overloaded")) + b"\n\n")
        await self.end(fault)


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": word} for word in words(block["text"]))
        case "thinking":
            yield from ({"type": "thinking_delta", "thinking": word} for word in words(block["thinking"]))
            yield {"type": "signature_delta", "signature": block["signature"]}
        case _:
            text = orjson.dumps(block["input"]).decode()
            size = max(1, len(text) // 3)
            for at in range(0, len(text), size):
                yield {"type": "input_json_delta", "partial_json": text[at : at + size]}
