"""A chat's answer as Anthropic's message: whole, or as the events of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.wire.fields import Json, new_id, reasoning_of
from app.wire.responses_items import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.errors import SluiceError

_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FIRST_SERVER_ERROR = 500
_KINDS = {"text": "text", "thinking": "thinking", "tool_use": "tool"}
"""How blocks are called here, so that what another model goes on with fits to what is open."""


def to_message(completion: Json, model: str) -> Json:
    """Translate a whole answer.

    Args:
        completion: a chat completion.
        model: who answered, where the completion does not say.
    """
    choice = completion["choices"][0]
    message = choice.get("message") or {}
    told = _head(completion.get("model") or model)
    told["content"] = list(_blocks(message))
    told["stop_reason"], told["stop_sequence"] = stop_of(choice.get("finish_reason"), choice.get("stop_reason"))
    told["usage"] = usage_of(completion.get("usage") or {})
    return told


def _head(model: str) -> Json:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of({}),
    }


def _blocks(message: Json) -> Iterator[Json]:
    signed = message.get("thinking_blocks") or []
    thought = reasoning_of(message)
    if signed:
        yield from signed
    elif thought:
        yield {"type": "thinking", "thinking": thought, "signature": ""}
    text = text_of(message.get("content")) or message.get("refusal")
    if text:
        yield {"type": "text", "text": text, "citations": None}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield {**_use(call), "input": _input(function.get("arguments"))}


def _use(call: Json) -> Json:
    name = (call.get("function") or {}).get("name") or ""
    block: Json = {"type": "tool_use", "id": call.get("id") or new_id("toolu_"), "name": name, "input": {}}
    return block | ({"extra_content": call["extra_content"]} if call.get("extra_content") else {})


def _input(arguments: Any) -> Json:
    """Return a call's arguments as an object; what a model wrote that is none is kept under one name."""
    try:
        found = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        found = arguments
    return found if isinstance(found, dict) else {"arguments": found}


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def stop_of(finish: str | None, sequence: Any = None) -> tuple[str, str | None]:
    """Return ``stop_reason`` and ``stop_sequence``; ``sequence`` is the text that stopped it, where that is known."""
    if finish == "stop" and isinstance(sequence, str):
        return "stop_sequence", sequence
    return _STOPS.get(finish or "stop", "end_turn"), None


def usage_of(told: Json) -> Json:
    """Translate a chat's usage: here what was read from a cache or written to it is not part of the input."""
    details = told.get("prompt_tokens_details") or {}
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    return {
        "input_tokens": max(0, (told.get("prompt_tokens") or 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": told.get("completion_tokens") or 0,
    }


def error_of(error: SluiceError, request_id: str) -> Json:
    """Return an error in this wire's shape; Sluice's code and the field's path are in ``details``."""
    default = "api_error" if error.status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    told: Json = {"type": _ERRORS.get(error.status, default), "message": error.message}
    if error.code:
        told["details"] = {"error_code": error.code, "param": error.param}
    return {"type": "error", "error": told, "request_id": request_id}


class MessageEvents:
    """Turns chunks into events. A state machine without I/O.

    Blocks come one after the other on this wire, so a second tool call that begins before the arguments of the first
    are whole is held back until the end.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._begun = False
        self._count = 0
        self._open: str | None = None
        self._call: int | None = None
        self._arguments = ""
        self._held: dict[int, Json] = {}
        self._told: set[int] = set()
        self._finish: str | None = None
        self._sequence: Any = None
        self._usage: Json | None = None
        self._last: Json | None = None

    def take(self, chunk: Json) -> Iterator[Json]:
        """Yield the events that a chunk is."""
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # a message is one answer
            yield from self._begin()
            yield from self._delta(choice.get("delta") or {})
            self._finish = choice.get("finish_reason") or self._finish
            self._sequence = choice.get("stop_reason") or self._sequence

    def end(self, usage: Json | None, more: Json | None = None) -> Iterator[Json]:
        """Yield the events that end the message.

        Args:
            usage: a chat's usage, for where no chunk told it.
            more: further fields of the last event.
        """
        yield from self._begin()
        yield from self._stop()
        for number in sorted(self._held):
            yield from self._whole_call(number)
        if self._last is not None:
            yield self._last
            yield {"type": "message_stop", **(more or {})}
            return
        reason, sequence = stop_of(self._finish, self._sequence)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        yield {"type": "message_delta", "delta": delta, "usage": usage_of(self._usage or usage or {})}
        yield {"type": "message_stop", **(more or {})}

    def relay(self, event: Json) -> Iterator[Json]:
        """Yield an event of a backend that has this wire, as it came; its end is held back for ``end``."""
        kind = event.get("type")
        if kind == "message_start":
            self._begun = True
        elif kind == "content_block_start":
            self._open = _KINDS.get(event["content_block"].get("type"), "other")
        elif kind == "content_block_stop":
            self._open, self._count = None, event["index"] + 1
        elif kind == "message_delta":
            self._last = event
            return
        elif kind == "message_stop":
            return
        yield event

    def _begin(self) -> Iterator[Json]:
        if not self._begun:
            self._begun = True
            yield {"type": "message_start", "message": _head(self._model)}

    def _delta(self, delta: Json) -> Iterator[Json]:
        thought, signed = reasoning_of(delta), delta.get("thinking_blocks") or ()
        if thought:
            yield from self._think(thought)
        for block in signed:
            yield from self._sign(block)
        said = delta.get("content") or delta.get("refusal")
        if isinstance(said, str) and said:
            yield from self._start("text", {"type": "text", "text": "", "citations": None})
            yield self._said({"type": "text_delta", "text": said})
        for call in delta.get("tool_calls") or ():
            yield from self._tool(call)

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _start(self, kind: str, block: Json) -> Iterator[Json]:
        """Begin a block, unless one of this kind is open."""
        if self._open != kind:
            yield from self._stop()
            self._open = kind
            yield {"type": "content_block_start", "index": self._count, "content_block": block}

    def _said(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._count, "delta": delta}

    def _stop(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = self._call = None
            yield {"type": "content_block_stop", "index": self._count}
            self._count += 1

    def _think(self, text: str) -> Iterator[Json]:
        yield from self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        yield self._said({"type": "thinking_delta", "thinking": text})

    def _sign(self, block: Json) -> Iterator[Json]:
        """Tell a signature, which ends the thinking that it signs; or thinking that nobody may read."""
        if block.get("type") == "redacted_thinking":
            yield from self._stop()
            yield from self._start("redacted", block)
        else:
            yield from self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._said({"type": "signature_delta", "signature": block.get("signature") or ""})
        yield from self._stop()

    def _tool(self, told: Json) -> Iterator[Json]:
        number = told.get("index") or 0
        if number not in self._told and number not in self._held and (self._call is None or _is_json(self._arguments)):
            yield from self._stop()
            self._open, self._call, self._arguments = "tool", number, ""
            self._told.add(number)
            yield {"type": "content_block_start", "index": self._count, "content_block": _use(told)}
        arguments = (told.get("function") or {}).get("arguments") or ""
        if number == self._call:
            self._arguments += arguments
            if arguments:
                yield self._said({"type": "input_json_delta", "partial_json": arguments})
        else:
            held = self._held.setdefault(number, {"call": told, "arguments": ""})
            held["arguments"] += arguments

    def _whole_call(self, number: int) -> Iterator[Json]:
        held = self._held[number]
        yield from self._start("tool", _use(held["call"]))
        if held["arguments"]:
            yield self._said({"type": "input_json_delta", "partial_json": held["arguments"]})
        yield from self._stop()
