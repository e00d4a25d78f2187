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

    from app.backend.base import Take
    from app.call import Target
    from app.dispatch import Answer

_PIECES = re.compile(r"\S+\s*|\s+")


class Replay:
    """Gives out a whole answer's events; the same face as a StreamAnswer."""

    replayed = True

    def __init__(self, answer: Answer) -> None:
        self.target: Target = answer.target
        self.said = Transcript()
        self._events: list[Event] = [_event(chunk) for chunk in chunks(answer.whole.body, answer.target.model)]

    async def batch(self) -> list[Event]:
        """Return all events at once, then none."""
        events, self._events = self._events, []
        for each in events:
            self.said.hear(each)
        return events

    def pass_on(self, take: Take) -> None:
        """Offer nothing to ``take``: nothing is waited for."""

    def close(self) -> None:
        """Nothing is held."""


class Retold(Replay):
    """Gives out a stream that was heard before, chunk by chunk."""

    def __init__(self, target: Target, told: list[dict[str, Any]]) -> None:
        self.target = target
        self.said = Transcript()
        self._events = [_event(chunk) for chunk in told]


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
        told = {"sluice": body["sluice"]} if "sluice" in body and place == 0 else {}
        yield {**_chunk(head, index, {}, choice.get("finish_reason")), **told}
    if body.get("usage"):
        yield {**head, "choices": [], "usage": body["usage"]}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("reasoning_content", "reasoning", "refusal"):
        if message.get(name):
            yield {name: message[name]}
    if message.get("thinking_blocks"):
        yield {"thinking_blocks": message["thinking_blocks"]}
    content = message.get("content")
    for piece in _PIECES.findall(content) if isinstance(content, str) else ():
        yield {"content": piece}
    if message.get("tool_calls"):
        yield {"tool_calls": [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]}


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def _event(chunk: dict[str, Any]) -> Event:
    return Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk)


_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_JOINED = {"role", "tool_calls", *_TEXTS}


def joined(told: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the chat completion that chunks make up; None where they hold what cannot be put together exactly."""
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in told:
        body |= {name: value for name, value in chunk.items() if value is not None}
        for choice in chunk.get("choices") or ():
            made = choices.setdefault(choice.get("index") or 0, {"message": {"role": "assistant", "content": None}})
            made["finish_reason"] = choice.get("finish_reason") or made.get("finish_reason")
            if choice.get("logprobs") or not _join(made["message"], choice.get("delta") or {}):
                return None
    listed = [{"index": index, **choices[index], "logprobs": None} for index in sorted(choices)]
    return {**body, "object": "chat.completion", "choices": listed}


def _join(message: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Add a delta to a message; return whether all of it is known."""
    for name in _TEXTS:
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for part in delta.get("tool_calls") or ():
        _join_call(message.setdefault("tool_calls", []), part)
    return not any(value for name, value in delta.items() if name not in _JOINED)


def _join_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a part of a tool call: one with an id begins a call, the others bring more of its arguments."""
    index = part.get("index") or 0
    more = part.get("function") or {}
    while len(calls) <= index:
        calls.append({"function": {"arguments": ""}})
    call = calls[index]
    function = {**call["function"], **{name: value for name, value in more.items() if name != "arguments" and value}}
    function["arguments"] += more.get("arguments") or ""
    call |= {name: value for name, value in part.items() if name not in {"index", "function"} and value}
    call["function"] = function
