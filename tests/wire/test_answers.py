"""Answers keep their meaning from a chat to another wire and back, whole and streamed, however the chunks are cut."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BackendError, Reason
from app.wire import messages_chat, responses_chat
from app.wire.completions import Told, chat_chunk, completion_of
from app.wire.fields import frame
from app.wire.messages_answer import MessageEvents, error_of, to_message
from app.wire.responses_answer import template, to_response
from app.wire.responses_events import ResponseEvents
from app.wire.responses_items import opened, sealed
from tests.schema import violations
from tests.schema_wires import anthropic_error, anthropic_violations, message_stream, response_stream
from tests.wire.told import completions, meaning, streamed, united

_SIZES = st.integers(1, 7)
_FEW = settings(max_examples=25, deadline=None)


@_FEW
@given(completions(), st.booleans())
def test_a_whole_response(completion: dict[str, Any], summary: bool) -> None:
    response = to_response(template({"input": "x"}, stored=False), completion, "m", summary=summary)
    assert list(violations("Response", orjson.dumps(response))) == []
    assert meaning(responses_chat.to_completion(response)) == meaning(completion)


@_FEW
@given(completions(), _SIZES, st.booleans())
def test_a_streamed_response(completion: dict[str, Any], size: int, summary: bool) -> None:
    events = ResponseEvents(template({"input": "x"}, stored=False), "m", summary=summary)
    told = [event for chunk in streamed(completion, size) for event in events.take(chunk)] + events.end(None)
    raw = b"".join(map(frame, told))
    assert list(response_stream(raw, ended=True, validate=violations)) == []
    chunks = responses_chat.ResponseChunks()
    assert meaning(united(map(chunks.take, told))) == meaning(completion)
    assert chunks.whole
    assert meaning(responses_chat.to_completion(events.response)) == meaning(completion)


@_FEW
@given(completions())
def test_a_whole_message(completion: dict[str, Any]) -> None:
    message = to_message(completion, "m")
    assert list(anthropic_violations("Message", message)) == []
    assert meaning(messages_chat.to_completion(message)) == meaning(completion)


@_FEW
@given(completions(), _SIZES)
def test_a_streamed_message(completion: dict[str, Any], size: int) -> None:
    events = MessageEvents("m")
    told = [event for chunk in streamed(completion, size) for event in events.take(chunk)] + list(events.end(None))
    assert list(message_stream(b"".join(map(frame, told)), ended=True)) == []
    chunks = messages_chat.MessageChunks()
    assert meaning(united(map(chunks.take, told))) == meaning(completion)
    assert chunks.whole


@_FEW
@given(completions(), _SIZES)
def test_a_completion(completion: dict[str, Any], size: int) -> None:
    message = completion["choices"][0]["message"]
    message.pop("tool_calls", None)
    message.pop("reasoning_content", None)
    if completion["choices"][0]["finish_reason"] == "tool_calls":
        completion["choices"][0]["finish_reason"] = "stop"
    told = Told("m", [], 1).whole(completion)
    assert list(violations("CreateCompletionResponse", orjson.dumps(told))) == []
    assert meaning(completion_of(told)) == meaning(completion)
    writer = Told("m", [], 1)
    chunks = [writer.chunk(chunk) for chunk in streamed(completion, size)]
    whole = united([chat_chunk(chunk) for chunk in chunks if chunk is not None])
    assert whole["choices"][0]["message"]["content"] == message["content"]
    assert whole["choices"][0]["finish_reason"] == completion["choices"][0]["finish_reason"]


def _call(index: int, arguments: str, name: str = "") -> dict[str, Any]:
    call = {"index": index, "function": {"arguments": arguments} | ({"name": name} if name else {})}
    call |= {"id": f"call_{index}", "type": "function"} if name else {}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


def test_calls_that_are_told_at_once_do_not_get_mixed_up() -> None:
    chunks = [
        _call(0, "", "f"),
        _call(1, "", "g"),
        _call(0, '{"a"'),
        _call(1, '{"b":'),
        _call(0, ":1}"),
        _call(1, "2}"),
    ]
    messages, responses = MessageEvents("m"), ResponseEvents(template({}, stored=False), "m", summary=False)
    told = [event for chunk in chunks for event in messages.take(chunk)] + list(messages.end(None))
    assert list(message_stream(b"".join(map(frame, told)), ended=True)) == []
    expected = [("call_0", "f", {"a": 1}), ("call_1", "g", {"b": 2})]
    whole = united(map(messages_chat.MessageChunks().take, told)) | {"usage": _NO_USAGE}
    assert meaning(whole)["calls"] == expected
    events = [event for chunk in chunks for event in responses.take(chunk)] + responses.end(None)
    whole = united(map(responses_chat.ResponseChunks().take, events)) | {"usage": _NO_USAGE}
    assert meaning(whole)["calls"] == expected


_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0}


def test_signed_thinking_survives_every_wire() -> None:
    blocks = [
        {"type": "thinking", "thinking": "so", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
    ]
    said = {"role": "assistant", "content": "text", "reasoning_content": "so", "thinking_blocks": blocks}
    completion = {"model": "m", "choices": [{"message": said, "finish_reason": "stop"}], "usage": _NO_USAGE}
    message = to_message(completion, "m")
    assert message["content"][:2] == blocks
    assert messages_chat.to_completion(message)["choices"][0]["message"]["thinking_blocks"] == blocks
    response = to_response(template({}, stored=False), completion, "m", summary=False)
    assert opened(response["output"][0]["encrypted_content"]) == blocks
    events = MessageEvents("m")
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in (
        {"reasoning_content": "so"}, {"thinking_blocks": blocks[:1]}, {"thinking_blocks": blocks[1:]}, {"content": "t"},
    )]  # fmt: skip
    told = [event for chunk in chunks for event in events.take(chunk)] + list(events.end(None))
    assert list(message_stream(b"".join(map(frame, told)), ended=True)) == []
    again = messages_chat.MessageChunks()
    deltas = [c["choices"][0]["delta"] for c in map(again.take, told) if c.get("choices")]
    assert [block for delta in deltas for block in delta.get("thinking_blocks", ())] == blocks


@pytest.mark.parametrize("content", [None, 7, "", "openai-sealed", "sluice.1.!!!", "sluice.1.e30="])
def test_what_another_sealed_stays_sealed(content: Any) -> None:
    assert opened(content) == []


def test_a_seal_opens() -> None:
    assert opened(sealed([{"type": "thinking"}])) == [{"type": "thinking"}]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529])
def test_errors_of_every_status_are_anthropics(status: int) -> None:
    error = BackendError(Reason.SERVER_ERROR, "It failed.", status=status, code="some_code")
    assert list(anthropic_error(error_of(error, "req_1"))) == []


def test_white_space_that_a_prefill_lost_is_not_told_twice() -> None:
    chunks = messages_chat.MessageChunks(" \n")

    def said(text: str) -> str:
        event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        delta: dict[str, str] = chunks.take(event)["choices"][0]["delta"]
        return delta["content"]

    assert [said(" "), said("\nand"), said(" on")] == ["", "and", " on"]
