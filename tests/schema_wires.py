"""Whether what is sent on the wires beside the chat's is as their owners describe them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Validate = Callable[[str, bytes], Iterator[str]]
_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_ANTHROPIC_ERRORS = {
    "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
    "request_too_large", "rate_limit_error", "api_error", "overloaded_error", "timeout_error",
}  # fmt: skip


def named_events(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream whose events have names; comments are left out.

    Raises:
        ValueError: something is neither.
    """
    found = []
    for block in body.split(b"\n\n"):
        if not block or block.startswith(b":"):
            continue
        name, _, data = block.partition(b"\n")
        if not name.startswith(b"event: ") or not data.startswith(b"data: "):
            raise ValueError(f"neither a named event nor a comment: {block[:200]!r}")
        found.append((name[7:].decode(), orjson.loads(data[6:])))
    return found


def response_stream(body: bytes, *, ended: bool, validate: Validate) -> Iterator[str]:
    """Yield what is wrong with the events of a response."""
    try:
        events = named_events(body)
    except ValueError as error:
        yield str(error)
        return
    for name, event in events:
        if name != event["type"]:
            yield f"an event {name} that says it is {event['type']}"
        yield from validate("ResponseStreamEvent", orjson.dumps(event))
    kinds = [name for name, _ in events]
    if [event["sequence_number"] for _, event in events] != list(range(len(events))):
        yield "events that are not numbered one by one"
    if kinds and kinds[:2] != ["response.created", "response.in_progress"]:
        yield f"a response that begins with {kinds[:2]}"
    if ended and not (kinds and (kinds[-1] in _ENDS or kinds[-1] == "error")):
        yield f"a response that ends with {kinds[-1:]}"
    if {event["response"]["id"] for _, event in events if "response" in event}.__len__() > 1:
        yield "several responses"
    yield from _items(events)


def _items(events: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Every item is added, told and done, at one place; the response at the end has all of them."""
    added = {e["output_index"]: e["item"]["id"] for n, e in events if n == "response.output_item.added"}
    done = {e["output_index"]: e["item"] for n, e in events if n == "response.output_item.done"}
    for name, event in events:
        if "item_id" in event and added.get(event["output_index"]) != event["item_id"]:
            yield f"{name} of an item that is not there"
    final = [event["response"] for name, event in events if name in _ENDS]
    if final and final[0]["output"] != [done[index] for index in sorted(added)]:
        yield "the response at the end is not what was told"


@cache
def _anthropic(name: str) -> TypeAdapter[Any]:
    import anthropic.types as kinds

    return TypeAdapter(getattr(kinds, name))


def anthropic_violations(name: str, value: Any) -> Iterator[str]:
    """Yield where a value is not what the SDK's own types say."""
    try:
        _anthropic(name).validate_python(value)
    except ValidationError as error:
        yield f"{name}: {str(error)[:400]}"


def anthropic_error(value: Any) -> Iterator[str]:
    """Yield what is wrong with an error of the Messages wire."""
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or value.get("type") != "error":
        yield f"no error of this wire: {value}"
    elif error.get("type") not in _ANTHROPIC_ERRORS or not error.get("message"):
        yield f"an error that says nothing: {value}"


def message_stream(body: bytes, *, ended: bool) -> Iterator[str]:
    """Yield what is wrong with the events of a message."""
    try:
        events = [(name, event) for name, event in named_events(body) if name != "ping"]
    except ValueError as error:
        yield str(error)
        return
    kinds = [name for name, _ in events]
    for name, event in events:
        if name == "error":
            yield from anthropic_error(event)
        else:
            yield from anthropic_violations("RawMessageStreamEvent", event)
    if kinds and kinds[0] not in {"message_start", "error"}:
        yield f"a message that begins with {kinds[0]}"
    if ended and not (kinds and kinds[-1] in {"message_stop", "error"}):
        yield f"a message that ends with {kinds[-1:]}"
    yield from _blocks(events)


def _blocks(events: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Blocks begin, go on and stop one after the other, numbered from zero."""
    current, count = None, 0
    for name, event in events:
        if name == "content_block_start":
            if current is not None or event["index"] != count:
                yield f"block {event['index']} begins inside of {current}"
            current, count = event["index"], count + 1
        elif name in {"content_block_delta", "content_block_stop"}:
            if event["index"] != current:
                yield f"{name} of block {event['index']} inside of {current}"
            current = current if name == "content_block_delta" else None


def completion_stream(body: bytes, *, ended: bool, validate: Validate) -> Iterator[str]:
    """Yield what is wrong with the events of a completion."""
    events = [block[6:] for block in body.split(b"\n\n") if block.startswith(b"data: ")]
    chunks = [each for each in events if each != b"[DONE]"]
    if ended and (not events or (events[-1] != b"[DONE]" and not events[-1].startswith(b'{"error"'))):
        yield f"a stream without an end: {events[-1:]}"
    for each in chunks:
        if each.startswith(b'{"error"'):
            yield from validate("ErrorResponse", each)
            continue
        value = orjson.loads(each)
        for choice in value["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # the description knows no open choices
        yield from validate("CreateCompletionResponse", orjson.dumps(value))
