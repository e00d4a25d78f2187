"""OpenAI's newer wire: ``/v1/responses``, as much of it as a gateway that relays it must keep apart from the chat's."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import shapes
from tests.upstream.answers import Reply, reply_to, words
from tests.upstream.play import Exchange, Stream, answer_json, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream.faults import Fault

_SEAL = "openai-sealed"
_numbers = count(1)


async def answer(x: Exchange) -> None:
    """Answer a response."""
    problem = _problem(x.body)
    if problem is not None:
        await fail(x, shapes.Failure(400, shapes.error(problem, param="input")))
        return
    reply = reply_to(_as_chat(x.body), x.faults, friendly=x.friendly)
    if x.body.get("stream") is True:
        await ResponseStream(x, shapes.Meta(str(x.body.get("model"))), reply).play()
        return
    await answer_json(x, _response(x, reply, list(_items(x, reply))))


def _problem(body: dict[str, Any]) -> str | None:
    """Return what is wrong: messages of a chat, or reasoning that this backend did not seal."""
    if "messages" in body or "input" not in body:
        return "Missing required parameter: 'input'."
    items = body["input"] if isinstance(body["input"], list) else []
    alien = [item for item in items if item.get("type") == "reasoning" and item.get("encrypted_content") != _SEAL]
    return "The encrypted content could not be verified." if alien else None


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    items = [{"role": "user", "content": body["input"]}] if isinstance(body["input"], str) else body["input"]
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    for item in items:
        if item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": item["output"]})
        elif "role" in item:
            messages.append({"role": item["role"], "content": item["content"]})
    form = (body.get("text") or {}).get("format") or {}
    wanted = {"type": "json_schema", "json_schema": form} if form.get("type") == "json_schema" else None
    tools = [{"type": "function", "function": t} for t in body.get("tools", ()) if t["type"] == "function"]
    return {
        "model": body.get("model"), "messages": messages, "max_tokens": body.get("max_output_tokens"),
        "response_format": wanted, "tools": tools, "tool_choice": body.get("tool_choice"),
    }  # fmt: skip


def _items(x: Exchange, reply: Reply) -> Iterator[dict[str, Any]]:
    if any(tool["type"] == "web_search" for tool in x.body.get("tools", ())):
        action = {"type": "search", "query": "x", "queries": ["x"]}
        yield {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": action}
    if reply.reasoning is not None:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": summary}
        if "reasoning.encrypted_content" in x.body.get("include", ()):
            item["encrypted_content"] = _SEAL
        yield item
    if reply.content is not None or not reply.calls:
        part = {"type": "output_text", "text": reply.content or "", "annotations": [], "logprobs": []}
        yield {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    for number, call in enumerate(reply.calls):
        yield {
            "id": f"fc_{number}", "type": "function_call", "status": "completed", "call_id": f"call_{number}",
            "name": call.name, "arguments": call.arguments,
        }  # fmt: skip


def _response(x: Exchange, reply: Reply, output: list[dict[str, Any]]) -> dict[str, Any]:
    cut = reply.finish == "length"
    return _head(x) | {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": reply.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": len(words(reply.reasoning or ""))},
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def _head(x: Exchange) -> dict[str, Any]:
    return {
        "id": f"resp_native{x.attempt.number}", "object": "response", "created_at": 1_760_000_000,
        "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None,
        "model": str(x.body.get("model")), "tools": x.body.get("tools", []), "output": [],
        "parallel_tool_calls": True, "metadata": {}, "tool_choice": "auto", "temperature": 1.0, "top_p": 1.0,
        "store": x.body.get("store", True), "previous_response_id": None,
    }  # fmt: skip


class ResponseStream(Stream):
    """One answer as this wire's events."""

    async def tell(self, kind: str, **more: Any) -> None:
        """Send one event; the numbers are this backend's own."""
        event = {"type": kind, "sequence_number": next(_numbers), **more}
        await self.x.event(b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n")

    async def play(self) -> None:
        x = self.x
        await x.open(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        await self.tell("response.created", response=_head(x))
        await self.tell("response.in_progress", response=_head(x))
        await self._slow_start()
        items = list(_items(x, self.reply))
        for index, item in enumerate(items):
            await self._item(index, item)
        await self._middle(last=True)
        response = _response(x, self.reply, items)
        await self.tell(f"response.{response['status']}", response=response)
        await self._end_of_body()

    async def _item(self, index: int, item: dict[str, Any]) -> None:
        empty: dict[str, dict[str, Any]] = {
            "message": {"content": []},
            "reasoning": {"summary": []},
            "function_call": {"arguments": ""},
        }
        opened = item | empty.get(item["type"], {})
        if "status" in item:
            opened["status"] = "in_progress"
        await self.tell("response.output_item.added", output_index=index, item=opened)
        place = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "message":
                await self._text(place, item["content"][0])
            case "reasoning":
                await self._summary(place, item["summary"][0])
            case "function_call":
                await self._deltas_of("response.function_call_arguments", place, item["arguments"])
                done = {"name": item["name"], "arguments": item["arguments"]}
                await self.tell("response.function_call_arguments.done", **place, **done)
        await self.tell("response.output_item.done", output_index=index, item=item)

    async def _text(self, place: dict[str, Any], part: dict[str, Any]) -> None:
        place = place | {"content_index": 0}
        await self.tell("response.content_part.added", **place, part=part | {"text": ""})
        await self._deltas_of("response.output_text", place | {"logprobs": []}, part["text"])
        await self.tell("response.output_text.done", **place, text=part["text"], logprobs=[])
        await self.tell("response.content_part.done", **place, part=part)

    async def _summary(self, place: dict[str, Any], part: dict[str, Any]) -> None:
        place = place | {"summary_index": 0}
        await self.tell("response.reasoning_summary_part.added", **place, part=part | {"text": ""})
        await self._deltas_of("response.reasoning_summary_text", place, part["text"])
        await self.tell("response.reasoning_summary_text.done", **place, text=part["text"])
        await self.tell("response.reasoning_summary_part.done", **place, part=part)

    async def _deltas_of(self, kind: str, place: dict[str, Any], text: str) -> None:
        for word in words(text):
            await self._middle()
            self.x.attempt.chunks += 1
            await self.tell(f"{kind}.delta", **place, delta=word)

    async def error(self, fault: Fault) -> None:
        error = shapes.error("The server had an error while it was answering.", "server_error", "server_error")
        await self.tell("error", **error)
        await self.end(fault)
