"""A whole answer as a stream: for a caller who wants events and a call that was held back to be checked."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import Event
from app.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.call import Target
    from app.dispatch import Answer

_PIECES = re.compile(r"\S+\s*|\s+")


class Replay:
    """Gives out a whole answer's events; the same face as a StreamAnswer."""

    def __init__(self, answer: Answer) -> None:
        self.target: Target = answer.target
        self.said = Transcript()
        self._events: list[Event] = [_event(chunk) for chunk in chunks(answer.whole.body, answer.target.model)]

    async def batch(self) -> list[Event]:
        """Return all events at once, then none."""
        events, self._events = self._events, []
        for each in events:
            self.said.take(each.chunk)
        return events

    def close(self) -> None:
        """Nothing is held."""


def chunks(body: dict[str, Any], model: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks that a backend would have streamed for a chat completion, the usage chunk last."""
    head = {
        "id": body.get("id") or f"chatcmpl-{time.time_ns():x}",
        "object": "chat.completion.chunk",
        "created": body.get("created") or int(time.time()),
        "model": body.get("model") or model,
    }
    for place, choice in enumerate(body["choices"]):
        index = choice.get("index", place)
        message = choice.get("message") or {}
        yield _chunk(head, index, {"role": "assistant", "content": ""})
        for delta in _deltas(message):
            yield _chunk(head, index, delta)
        yield _chunk(head, index, {}, choice.get("finish_reason"))
    if body.get("usage"):
        yield {**head, "choices": [], "usage": body["usage"]}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("reasoning_content", "reasoning", "refusal"):
        if message.get(name):
            yield {name: message[name]}
    content = message.get("content")
    for piece in _PIECES.findall(content) if isinstance(content, str) else ():
        yield {"content": piece}
    if message.get("tool_calls"):
        yield {"tool_calls": [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]}


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def _event(chunk: dict[str, Any]) -> Event:
    return Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk)
