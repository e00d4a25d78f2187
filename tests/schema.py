"""Whether all that a gateway sends is what OpenAI's own description of its API says: bodies, events, errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests import schema_wires as wires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DESCRIPTION = Path(__file__).parent / "data" / "openai-subset.openapi.json"
_MOST_BYTES = 4 * 1024 * 1024
_VARYING = re.compile(
    rb'"(id|item_id|content|name|arguments|text|delta)":"(?:[^"\\]|\\.)*"|"(created|created_at|completed_at|sequence_number|\w+_tokens)":\d+|"\w+Ms":[\d.]+'
)
_SCHEMAS = {
    "/chat/completions": "CreateChatCompletionResponse",
    "/embeddings": "CreateEmbeddingResponse",
    "/models": "ListModelsResponse",
    "/responses": "Response",
    "/completions": "CreateCompletionResponse",
    "/moderations": "CreateModerationResponse",
    "/images/generations": "ImagesResponse",
    "/images/edits": "ImagesResponse",
    "/images/variations": "ImagesResponse",
}
_KEPT = {
    "/files": ("ListFilesResponse", "OpenAIFile"),
    "/batches": ("ListBatchesResponse", "Batch"),
}
"""The list of what is kept, and one of it."""
_EVENTS = {
    "/audio/transcriptions": "CreateTranscriptionResponseStreamEvent",
    "/audio/speech": "CreateSpeechResponseStreamEvent",
    "/images/generations": "ImageGenStreamEvent",
}
"""Streams of other events than chat chunks: no ``[DONE]`` ends them."""
_ANTHROPIC = {"/messages": "Message", "/messages/count_tokens": "MessageTokensCount"}
_NOT_ERRORS = ("/health/ready",)
_seen: set[tuple[str, bytes]] = set()


@cache
def validator(name: str) -> Draft202012Validator:
    """Return the validator of one of the description's schemas."""
    description = orjson.loads(_DESCRIPTION.read_bytes())
    registry: Registry[Any] = Registry().with_resource("openai", DRAFT202012.create_resource(description))
    return Draft202012Validator({"$ref": f"openai#/components/schemas/{name}"}, registry=registry)


def violations(name: str, raw: bytes) -> Iterator[str]:
    """Yield what is wrong with a JSON document; a document of a shape that was good before is good."""
    shape = (name, _VARYING.sub(b"", raw))
    if shape in _seen:
        return
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        yield f"not JSON: {error}: {raw[:200]!r}"
        return
    if name == "CreateEmbeddingResponse":
        _unpack(value)
    found = [f"{name}{error.json_path[1:]}: {error.message[:300]}" for error in validator(name).iter_errors(value)]
    if name == "ErrorResponse" and not found:
        found = list(_error_violations(value))
    yield from found
    if not found:
        _seen.add(shape)


def _unpack(value: Any) -> None:
    """The description knows vectors as numbers only; base64 strings are what clients ask for."""
    for each in value.get("data", []):
        if isinstance(each.get("embedding"), str):
            each["embedding"] = []


def _error_violations(value: dict[str, Any]) -> Iterator[str]:
    error = value["error"]
    if set(error) != {"message", "type", "param", "code"} or set(value) != {"error"}:
        yield f"an error with other fields: {value}"
    if not error["message"] or not error["type"]:
        yield f"an error that says nothing: {value}"


def events_of(body: bytes) -> list[bytes]:
    """Return the data of every event of a stream."""
    return [block[6:] for block in body.split(b"\n\n") if block.startswith(b"data: ")]


def stream_violations(body: bytes, *, ended: bool) -> Iterator[str]:
    """Yield what is wrong with a stream of chat chunks; one that the caller left may lack its end."""
    events = events_of(body)
    for block in body.split(b"\n\n"):
        if block and not block.startswith((b"data: ", b": ")):
            yield f"neither data nor comment: {block[:200]!r}"
    if ended and (not events or (events[-1] != b"[DONE]" and b'"error"' not in events[-1])):
        yield f"a stream without an end: {events[-1:]}"
    if b"[DONE]" in events[:-1]:
        yield "events after [DONE]"
    chunks = [each for each in events if each != b"[DONE]"]
    for number, each in enumerate(chunks):
        is_error = each.startswith(b'{"error"')
        yield from violations("ErrorResponse" if is_error else "CreateChatCompletionStreamResponse", each)
        if is_error and (number + 1 < len(chunks) or events[-1] == b"[DONE]"):
            yield "an error event that is not the last one"
    yield from _identity_violations([orjson.loads(each) for each in chunks if not each.startswith(b'{"error"')])


def _identity_violations(chunks: list[dict[str, Any]]) -> Iterator[str]:
    if len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) > 1:
        yield "chunks of different identities"
    begun: set[int] = set()
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        if choice["index"] not in begun and choice["delta"].get("role") != "assistant":
            yield f"a choice that does not begin with the role: {choice}"
        begun.add(choice["index"])


@dataclass(slots=True)
class Sent:
    """One response."""

    method: str
    path: str
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def take(self, message: Message) -> None:
        """Note what is sent."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        elif len(self.body) < _MOST_BYTES:
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)

    def violations(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if not self.status or len(self.body) >= _MOST_BYTES:
            return
        kinds = [value for name, value in self.headers if name.lower() == b"content-type"]
        if sum(name.lower() == b"x-request-id" for name, _ in self.headers) != 1:
            yield "not one x-request-id"
        if self.status >= 400 and self.path not in _NOT_ERRORS:
            if kinds != [b"application/json"]:
                yield f"an error of type {kinds}"
            if self.route.startswith("/messages") and self.method == "POST" and self.route in _ANTHROPIC:
                yield from wires.anthropic_error(orjson.loads(self.body))
            else:
                yield from violations("ErrorResponse", bytes(self.body))
        elif self.status == 200 and self.method in {"GET", "POST"}:
            yield from self._answer_violations(kinds)

    @property
    def route(self) -> str:
        """The path, without what may be left out."""
        return self.path.removeprefix("/v1").rstrip("/")

    def _answer_violations(self, kinds: list[bytes]) -> Iterator[str]:
        path, body = self.route, bytes(self.body)
        if kinds and kinds[0].startswith(b"text/event-stream"):
            yield from self._event_violations(body)
        elif path in _SCHEMAS:
            yield from violations(_SCHEMAS[path], body)
        elif path in _ANTHROPIC:
            yield from wires.anthropic_violations(_ANTHROPIC[path], orjson.loads(body))
        elif path.startswith("/models/"):
            yield from violations("Model", body)
        elif "content" not in path:
            yield from self._kept_violations(path, body)

    def _kept_violations(self, path: str, body: bytes) -> Iterator[str]:
        for root, (many, one) in _KEPT.items():
            if path.startswith(root):
                yield from violations(many if path == root and self.method == "GET" else one, body)

    def _event_violations(self, body: bytes) -> Iterator[str]:
        match self.route:
            case "/responses":
                yield from wires.response_stream(body, ended=self.ended, validate=violations)
            case "/messages":
                yield from wires.message_stream(body, ended=self.ended)
            case "/completions":
                yield from wires.completion_stream(body, ended=self.ended, validate=violations)
            case path if path in _EVENTS:
                for each in events_of(body):
                    yield from violations("ErrorResponse" if each.startswith(b'{"error"') else _EVENTS[path], each)
            case _:
                yield from stream_violations(body, ended=self.ended)


class Checked:
    """An app whose responses are noted, and checked when the test ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.sent: list[Sent] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and note what is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Sent(scope["method"], scope["path"])
        self.sent.append(sent)

        async def noted(message: Message) -> None:
            sent.take(message)
            await send(message)

        await self._app(scope, receive, noted)

    def violations(self) -> list[str]:
        """Return what was wrong with all that was sent."""
        return [
            f"{each.method} {each.path} {each.status}: {wrong}" for each in self.sent for wrong in each.violations()
        ]
