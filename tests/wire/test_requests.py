"""Requests keep their meaning from a chat to another wire and back."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.wire import messages_request, responses_request
from app.wire.chat_messages import to_messages, trimmed
from tests.wire.told import NAME, TEXT, Json, calls

_FEW = settings(max_examples=25, deadline=None)
_IMAGE = st.sampled_from(["data:image/png;base64,iVBORw0KGgo=", "https://example.org/a.png"])
_VISIBLE = TEXT.map(lambda text: f"a{text}b")
_PART = st.one_of(
    _VISIBLE.map(lambda text: {"type": "text", "text": text}),
    _IMAGE.map(lambda url: {"type": "image_url", "image_url": {"url": url}}),
)
_SCHEMA = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAME, st.just({"type": "string"}), max_size=2)}
)


@st.composite
def _turn(draw: st.DrawFn) -> list[Json]:
    """A user's message, the answer to it with tool calls, and their results."""
    content = draw(_VISIBLE | st.lists(_PART, min_size=2, max_size=3))
    called = draw(calls())
    answer: Json = {"role": "assistant", "content": draw(_VISIBLE)}
    if called:
        answer["tool_calls"] = called
    results = [{"role": "tool", "tool_call_id": call["id"], "content": draw(_VISIBLE)} for call in called]
    return [{"role": "user", "content": content}, answer, *results]


@st.composite
def chats(draw: st.DrawFn) -> Json:
    """A chat of some turns that ends with the user's word, its tools and the form of its answer."""
    turns = draw(st.lists(_turn(), max_size=2))
    system = [{"role": "system", "content": draw(_VISIBLE)}] if draw(st.booleans()) else []
    messages = [*system, *(message for turn in turns for message in turn), {"role": "user", "content": draw(_VISIBLE)}]
    chat: Json = {"model": "m", "messages": messages, "max_tokens": draw(st.integers(1, 9999))}
    names = draw(st.lists(NAME, unique=True, max_size=2))
    if names:
        schema = draw(_SCHEMA)
        chat["tools"] = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in names]
        named = {"type": "function", "function": {"name": names[0]}}
        choice = draw(st.sampled_from([None, "none", "required", named]))
        chat |= {} if choice is None else {"tool_choice": choice}
    if draw(st.booleans()):
        form = {"name": "answer", "schema": draw(_SCHEMA), "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": form}
    return chat


def _meaning(chat: Json) -> Json:
    """What a chat asks: contents as lists of parts, results and the user's word after them side by side."""
    told = []
    for message in chat["messages"]:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
        called = [
            (call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        ]
        told.append((message["role"], parts, called, message.get("tool_call_id")))
    names = ("tools", "tool_choice", "response_format", "max_tokens", "stop", "model")
    return {"messages": told} | {name: chat.get(name) for name in names}


@_FEW
@given(chats(), st.lists(_VISIBLE, max_size=2))
def test_chat_to_messages_and_back(chat: Json, stops: list[str]) -> None:
    if stops:
        chat["stop"] = stops
    before = orjson.dumps(chat)
    request = to_messages(chat, "m", version="2026-10-21", max_tokens=1)
    assert orjson.dumps(chat) == before
    roles = [message["role"] for message in request["messages"]]
    assert all(one != other for one, other in itertools.pairwise(roles))
    again, needs = messages_request.to_chat(request)
    assert _meaning(again) == _meaning(chat)
    assert needs == frozenset()


@_FEW
@given(chats())
def test_chat_to_responses_and_back(chat: Json) -> None:
    request = _as_response(chat)
    again, needs = responses_request.to_chat(request)
    again["max_tokens"] = again.pop("max_completion_tokens")
    assert _meaning(again) == _meaning(chat)
    assert needs == frozenset()


def _as_response(chat: Json) -> Json:
    """Write a chat as a client of the Responses API would."""
    items: list[Json] = []
    for message in chat["messages"]:
        items += _items(message)
    request: Json = {"model": chat["model"], "input": items, "max_output_tokens": max(16, chat["max_tokens"])}
    chat["max_tokens"] = request["max_output_tokens"]
    if chat.get("tools"):
        request["tools"] = [{"type": "function", "strict": None, **tool["function"]} for tool in chat["tools"]]
    choice = chat.get("tool_choice")
    if choice is not None:
        named = {"type": "function", "name": choice["function"]["name"]} if isinstance(choice, dict) else choice
        request["tool_choice"] = named
    if chat.get("response_format"):
        request["text"] = {"format": {"type": "json_schema", **chat["response_format"]["json_schema"]}}
    return request


def _items(message: Json) -> list[Json]:
    role, content = message["role"], message["content"]
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": content}]
    if isinstance(content, list):
        content = [_part(part) for part in content]
    called = [
        {"type": "function_call", "call_id": call["id"], **call["function"]} for call in message.get("tool_calls", ())
    ]
    return [{"type": "message", "role": role, "content": content}, *called]


def _part(part: Json) -> Json:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["image_url"]["url"]}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["text", "user", "tool", "function", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "input", "id", "call_id", "source", "output"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_FIELDS = ["input", "messages", "system", "tools", "tool_choice", "text", "instructions", "reasoning", "output_config"]


@_FEW
@given(st.dictionaries(st.sampled_from([*_FIELDS, "metadata", "include", "max_tokens"]), _JSON))
def test_any_body_is_a_chat_or_a_400(body: Json) -> None:
    from app.errors import CallerError

    for translate in (responses_request.to_chat, messages_request.to_chat):
        for more in ({}, {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "input": "x"}):
            try:
                told = translate({**more, **body})[0]["messages"] is not None
            except CallerError as error:
                told = error.status in {400, 404} and bool(error.param)
            assert told


def test_reasoning_goes_with_the_message_that_follows() -> None:
    refusal = {"type": "refusal", "refusal": "n"}
    chat, _ = responses_request.to_chat(
        {
            "input": [
                {"role": "user", "content": "x"},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
                {
                    "type": "reasoning",
                    "id": "rs_2",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "2"}],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "y"}, refusal],
                },
            ]
        }
    )
    _, first, result, second = chat["messages"]
    assert (first["reasoning_content"], first["tool_calls"][0]["id"]) == ("so", "c")
    assert result == {"role": "tool", "tool_call_id": "c", "content": "r"}
    assert (second["reasoning_content"], second["content"], second["refusal"]) == ("2", "y", "n")


def test_pictures_that_a_tool_returned_follow_the_results() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [image]},
        {"type": "tool_result", "tool_use_id": "b", "content": "text"},
    ]
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": results}]}
    chat, _ = messages_request.to_chat(body)
    assert [message["role"] for message in chat["messages"]] == ["tool", "tool", "user"]
    assert chat["messages"][2]["content"][0]["image_url"]["url"] == "data:image/png;base64,AAAA"


def test_allowed_tools_are_the_only_ones_offered() -> None:
    tools: list[Json] = [{"type": "function", "name": name, "parameters": {}, "strict": None} for name in "ab"]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    chat, _ = responses_request.to_chat({"input": "x", "tools": tools, "tool_choice": choice})
    assert [tool["function"]["name"] for tool in chat["tools"]] == ["b"]
    assert chat["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("claude-opus-4-7", "high", {"type": "adaptive"}),
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 2048}),
        ("claude-sonnet-4-20250514", "minimal", {"type": "enabled", "budget_tokens": 1024}),
        ("claude-3-5-haiku", "high", None),
        ("claude-opus-4-7", "none", {"type": "disabled"}),
    ],
)
def test_effort_becomes_what_the_model_knows(model: str, effort: str, thinking: Json | None) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": effort, "max_tokens": 9999}
    made = to_messages(chat, model, version="2026-10-21", max_tokens=1)
    assert made.get("thinking") == thinking


def test_an_answer_to_go_on_with_ends_without_white_space() -> None:
    chat = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "one two \n"}]}
    made = to_messages(chat, "m", version="2026-10-21", max_tokens=1)
    assert made["messages"][-1]["content"] == [{"type": "text", "text": "one two"}]
    assert trimmed(chat) == " \n"
