"""Anthropic's answers as a chat's: whole messages, and the events of a stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from app.wire.fields import Json, new_id

if TYPE_CHECKING:
    from collections.abc import Callable

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
    "timeout_error": 504,
}
"""What an error that came inside of a stream would have been as a response."""


def to_completion(message: Json) -> Json:
    """Translate a whole message."""
    said: Json = {"role": "assistant", "content": None, "refusal": None}
    for block in message.get("content") or ():
        _take_block(said, block)
    choice = {"index": 0, "message": said, "logprobs": None, **_finish(message)}
    return {
        "id": message.get("id") or new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": message.get("model") or "",
        "choices": [choice],
        "usage": usage_of(message.get("usage") or {}),
    }


def _finish(told: Json) -> Json:
    found: Json = {"finish_reason": FINISHES.get(told.get("stop_reason") or "", "stop")}
    if told.get("stop_sequence"):
        found["stop_reason"] = told["stop_sequence"]
    return found


def _take_block(said: Json, block: Json) -> None:
    kind = block.get("type")
    if kind == "text":
        said["content"] = (said["content"] or "") + block["text"]
    elif kind in {"thinking", "redacted_thinking"}:
        if block.get("thinking"):
            said["reasoning_content"] = said.get("reasoning_content", "") + block["thinking"]
        said.setdefault("thinking_blocks", []).append(block)
    elif kind == "tool_use":
        function = {"name": block["name"], "arguments": orjson.dumps(block.get("input") or {}).decode()}
        call = {"id": block["id"], "type": "function", "function": function}
        said.setdefault("tool_calls", []).append(call)


def usage_of(told: Json) -> Json:
    """Translate usage: a chat's prompt includes what was read from a cache and what was written to it."""
    read, written = told.get("cache_read_input_tokens") or 0, told.get("cache_creation_input_tokens") or 0
    prompt = (told.get("input_tokens") or 0) + read + written
    completion = told.get("output_tokens") or 0
    details = told.get("output_tokens_details") or {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": details.get("thinking_tokens") or 0},
    }


class MessageChunks:
    """Turns the events of a message into a chat's chunks, one each. A state machine without I/O.

    Args:
        lost: white space at the end of a prefill that could not be sent: if the answer begins with it, that is no news.

    Attributes:
        whole: whether the message has stopped.
    """

    def __init__(self, lost: str = "") -> None:
        self.whole = False
        self._lost = lost
        self._head: Json = {}
        self._usage: Json = {}
        self._calls: dict[int, int] = {}
        self._thinking: dict[int, Json] = {}
        self._takers: dict[str, Callable[[Json], Json]] = {
            "message_start": self._start,
            "content_block_start": self._block,
            "content_block_delta": self._delta,
            "content_block_stop": self._stop,
            "message_delta": self._end,
            "message_stop": self._stopped,
        }

    def take(self, event: Json) -> Json:
        """Return the chunk that an event is; empty where a chat has none."""
        taker = self._takers.get(event.get("type") or "")
        return {} if taker is None else taker(event)

    def _chunk(self, delta: Json, **more: Any) -> Json:
        return {
            **self._head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}],
        }

    def _start(self, event: Json) -> Json:
        message = event["message"]
        self._usage = message.get("usage") or {}
        self._head = {
            "id": message.get("id") or new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": message.get("model") or "",
        }
        return self._chunk({"role": "assistant", "content": ""})

    def _block(self, event: Json) -> Json:
        block, index = event["content_block"], event["index"]
        kind = block.get("type")
        if kind == "tool_use":
            number = self._calls[index] = len(self._calls)
            function = {"name": block["name"], "arguments": ""}
            return self._chunk(
                {"tool_calls": [{"index": number, "id": block["id"], "type": "function", "function": function}]}
            )
        if kind in {"thinking", "redacted_thinking"}:
            self._thinking[index] = dict(block)
        elif kind == "text":
            return self._chunk({"content": block["text"]}) if block.get("text") else {}
        else:
            return self._chunk({"native": True})
        return {}

    def _delta(self, event: Json) -> Json:
        delta, index = event["delta"], event["index"]
        kind = delta.get("type")
        if kind == "text_delta":
            return self._chunk({"content": self._news(delta["text"])})
        if kind == "thinking_delta":
            self._thinking[index]["thinking"] += delta["thinking"]
            return self._chunk({"reasoning_content": delta["thinking"]})
        if kind == "signature_delta":
            self._thinking[index]["signature"] = delta["signature"]
            return {}
        if kind == "input_json_delta" and index in self._calls:
            function = {"arguments": delta["partial_json"]}
            return self._chunk({"tool_calls": [{"index": self._calls[index], "function": function}]})
        return self._chunk({"native": True})

    def _news(self, text: str) -> str:
        """Return the text less the white space that the prefill had already."""
        while self._lost and text and text[0] == self._lost[0]:
            text, self._lost = text[1:], self._lost[1:]
        if text:
            self._lost = ""
        return text

    def _stop(self, event: Json) -> Json:
        block = self._thinking.pop(event["index"], None)
        signed = block is not None and (block.get("signature") or block.get("data"))
        return self._chunk({"thinking_blocks": [block]}) if signed else {}

    def _end(self, event: Json) -> Json:
        told = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        self._usage = {**self._usage, **told}
        return {**self._chunk({}, **_finish(event["delta"])), "usage": usage_of(self._usage)}

    def _stopped(self, _: Json) -> Json:
        self.whole = True
        return {}


def error_in(event: Json) -> tuple[Json, int] | None:
    """Return the error that an event is, with the status it would have had as a response; None where it is none."""
    told = event.get("error")
    if event.get("type") != "error" or not isinstance(told, dict):
        return None
    return {"error": told}, STATUSES.get(str(told.get("type")), 502)
