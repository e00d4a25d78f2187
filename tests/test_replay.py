from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.frames import Framer
from app.backend.base import Whole
from app.call import Target
from app.dispatch import Answer
from app.replay import Replay, chunks, joined
from tests.test_upstream import SCHEMAS
from tests.upstream.client import events, said

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def body(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [{"index": n, "message": each, "finish_reason": "stop"} for n, each in enumerate(messages)]
    return {"id": "chatcmpl-1", "created": 7, "model": "m", "choices": choices, "usage": USAGE, **more}


def replay(whole: dict[str, Any]) -> Replay:
    return Replay(Answer(Target("up", "m"), Whole(json.dumps(whole).encode(), whole, {})))


@given(st.text())
def test_the_pieces_are_the_text(text: str) -> None:
    assert said(list(chunks(body({"content": text}), "m"))) == text


@pytest.mark.parametrize(
    "message",
    [
        {"content": "some words here"},
        {"content": None, "tool_calls": CALLS},
        {"content": None, "refusal": "no"},
        {"content": "so", "reasoning_content": "because"},
        {},
        {"content": [{"type": "text", "text": "parts"}]},
    ],
)
@pytest.mark.parametrize("wants_usage", [True, False])
async def test_callers_get_valid_chunks(message: dict[str, Any], wants_usage: bool) -> None:
    stream = replay(body(message, {"content": "second"}))
    framer = Framer("m", wants_usage=wants_usage, holds_last=False)
    raw = b""
    while batch := await stream.batch():
        raw += framer.frames(batch)
    *found, done = events((raw + framer.end(stream.said.usage())).decode())
    assert done == "[DONE]"
    for chunk in found:
        jsonschema.validate(chunk, SCHEMAS | {"$ref": "#/components/schemas/CreateChatCompletionStreamResponse"})
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in found} == {("chatcmpl-1", 7, "m")}
    assert [c["usage"] for c in found if c.get("usage")] == ([USAGE] if wants_usage else [])
    ends = [c["choices"][0]["index"] for c in found if c["choices"] and c["choices"][0]["finish_reason"]]
    assert ends == [0, 1]
    assert stream.said.usage().prompt == 3


async def test_tool_calls_arrive_with_their_index() -> None:
    (call,) = [
        call
        for chunk in chunks(body({"content": None, "tool_calls": CALLS}), "m")
        if chunk["choices"]
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert call == {"index": 0, **CALLS[0]}


async def test_what_is_missing_is_made_up_once() -> None:
    whole = {"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}]}
    found = list(chunks(whole, "model-of-target"))
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found}) == 1
    assert found[0]["model"] == "model-of-target"
    assert all(chunk["choices"] for chunk in found)


_TEXT = st.text(max_size=20) | st.none()
_CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abc", min_size=1, max_size=4),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.text("fgh", min_size=1, max_size=4), "arguments": st.text(max_size=9)}
            ),
        }
    ),
    max_size=3,
)


@given(
    st.lists(st.tuples(_TEXT, _TEXT, _CALLS, st.sampled_from(["stop", "length", "tool_calls"])), min_size=1, max_size=3)
)
def test_what_was_taken_apart_is_put_together_again(told: list[tuple[str | None, str | None, list[Any], str]]) -> None:
    choices = []
    for index, (content, reasoning, calls, finish) in enumerate(told):
        message: dict[str, Any] = {"role": "assistant", "content": content or None}
        message |= {"reasoning_content": reasoning} if reasoning else {}
        message |= {"tool_calls": calls} if calls else {}
        choices.append({"index": index, "message": message, "finish_reason": finish, "logprobs": None})
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = {"id": "i", "object": "chat.completion", "created": 1, "model": "m", "usage": usage, "choices": choices}
    assert joined(list(chunks(body, "m"))) == body


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "delta": {"content": "a", "audio": {"data": "x"}}},
        {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{}]}},
    ],
)
def test_what_cannot_be_put_together_exactly_is_not(choice: dict[str, Any]) -> None:
    assert joined([{"id": "i", "choices": [choice]}]) is None
