"""The wires beside the chat's, as backends speak them: path, request, and the way back to a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app.backend.base import Event
from app.wire import completions, messages_chat, responses_chat

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.call import Native, Target

Json = dict[str, Any]
COUNT_PATH = "/messages/count_tokens"
COUNTED = frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "mcp_servers"})
"""What of a message's request counts as input."""
_REASONS = "reasoning.encrypted_content"


class NativeEvent(Event):
    """An event of another wire, with the chat's chunk that it is; the caller may get it as it came."""

    __slots__ = ("told",)

    def __init__(self, chunk: Json, told: Json) -> None:
        super().__init__(b"", chunk)
        self.told = told


class Chunks(Protocol):
    """Turns a wire's events into a chat's chunks."""

    @property
    def whole(self) -> bool:
        """Whether the last event has come."""

    def take(self, event: Json) -> Json:
        """Return the chunk that an event is; empty where a chat has none."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire.

    Attributes:
        path: behind the base URL.
        completion: a whole answer as a chat completion.
        chunks: makes what reads a stream.
        error: the error that an event of a stream is, with its status, or None.
        good: whether a whole answer has what the wire promises.
        relayed: whether a caller on this wire gets the backend's own words.
    """

    path: str
    completion: Callable[[Json], Json]
    chunks: Callable[[], Chunks]
    error: Callable[[Json], tuple[Json, int] | None]
    good: Callable[[Json], bool]
    relayed: bool = True


@dataclass(frozen=True, slots=True)
class Spoken:
    """One call on another wire than the chat's.

    Attributes:
        body: what is sent.
        relayed: whether the caller is to get the backend's own words.
        headers: beside the backend's own.
        lost: white space of a prefill that could not be sent.
    """

    wire: Wire
    body: Json
    relayed: bool
    headers: tuple[tuple[str, str], ...] = ()
    lost: str = ""

    def chunks(self) -> Chunks:
        """Return what reads the stream."""
        return messages_chat.MessageChunks(self.lost) if self.lost else self.wire.chunks()


class _Plain:
    """Reads the chunks of a completion, whose end is ``[DONE]``."""

    whole = False

    def take(self, event: Json) -> Json:
        return completions.chat_chunk(event)


WIRES = {
    "responses": Wire(
        "/responses",
        responses_chat.to_completion,
        responses_chat.ResponseChunks,
        responses_chat.error_in,
        lambda body: isinstance(body.get("output"), list) and body.get("status") in {"completed", "incomplete"},
    ),
    "messages": Wire(
        "/messages",
        messages_chat.to_completion,
        messages_chat.MessageChunks,
        messages_chat.error_in,
        lambda body: isinstance(body.get("content"), list) and bool(body.get("stop_reason")),
    ),
    "completions": Wire(
        "/completions",
        completions.completion_of,
        _Plain,
        lambda _: None,
        lambda body: isinstance(body.get("choices"), list) and bool(body["choices"]),
        relayed=False,
    ),
}


def spoken(native: Native, target: Target) -> Spoken:
    """Return the caller's own words for a target."""
    body = {**native.body, "model": target.model}
    for name in ("models", "performance"):
        body.pop(name, None)
    wire = WIRES[native.wire]
    return Spoken(wire, _READY.get(native.wire, _as_is)(body), wire.relayed, native.headers)


def _as_is(body: Json) -> Json:
    if body.get("stream") is True:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def _response(body: Json) -> Json:
    """Nothing is stored at the backend, so reasoning comes along, sealed; what another sealed cannot be read there."""
    body["store"] = False
    body["include"] = list(dict.fromkeys([*(body.get("include") or ()), _REASONS]))
    for name in ("previous_response_id", "background", "conversation"):
        body.pop(name, None)
    if isinstance(body.get("input"), list):
        body["input"] = [item for item in body["input"] if not _foreign_reasoning(item)]
    return body


def _foreign_reasoning(item: Json) -> bool:
    sealed = item.get("encrypted_content")
    return item.get("type") == "reasoning" and (not isinstance(sealed, str) or sealed.startswith("sluice."))


def _message(body: Json) -> Json:
    """Thinking that nobody signed came from a model elsewhere, and would be refused."""
    body["messages"] = [_signed(message) for message in body["messages"]]
    return body


def _signed(message: Json) -> Json:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return message
    kept = [block for block in content if block.get("type") != "thinking" or block.get("signature")]
    return message if len(kept) == len(content) else {**message, "content": kept}


_READY: dict[str, Callable[[Json], Json]] = {"responses": _response, "messages": _message}
