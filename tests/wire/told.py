"""What a chat's answer means, however it was told; and chats and answers drawn by hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
NAME = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAME, st.one_of(TEXT, st.integers(-9, 9), st.booleans()), max_size=3)
COUNT = st.integers(0, 10_000)


@st.composite
def calls(draw: st.DrawFn) -> list[Json]:
    """Tool calls, each with an id of its own."""
    told = draw(st.lists(st.tuples(NAME, ARGUMENTS), max_size=3))
    return [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": orjson.dumps(given).decode()}}
        for n, (name, given) in enumerate(told)
    ]


@st.composite
def completions(draw: st.DrawFn) -> Json:
    """A whole chat completion: text or a refusal, reasoning, tool calls, any end, usage."""
    called = draw(calls())
    message: Json = {"role": "assistant", "content": draw(st.none() | TEXT), "refusal": None}
    if not called and message["content"] is None:
        message["content"] = "x"
    if called:
        message["tool_calls"] = called
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT)
    finish = "tool_calls" if called else draw(st.sampled_from(["stop", "length", "content_filter"]))
    cached, written, fresh, said = draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT)
    usage = {
        "prompt_tokens": cached + written + fresh,
        "completion_tokens": said,
        "total_tokens": cached + written + fresh + said,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def meaning(completion: Json) -> Json:
    """Return what a completion says: arguments as values, ids and details left out."""
    choice = completion["choices"][0]
    message = choice["message"]
    usage = completion["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return {
        "text": message.get("content") or None,
        "refusal": message.get("refusal"),
        "reasoning": message.get("reasoning_content"),
        "calls": [
            (call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"] or "{}"))
            for call in message.get("tool_calls") or ()
        ],
        "finish": choice["finish_reason"],
        "usage": (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            details.get("cached_tokens"),
            details.get("cache_write_tokens"),
        ),
    }


def united(chunks: Iterable[Json]) -> Json:
    """Return the completion that chunks are the pieces of."""
    message: Json = {"role": "assistant", "content": None, "refusal": None}
    called: dict[int, Json] = {}
    finish: str | None = None
    usage: Json = {}
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            _add(message, called, choice["delta"])
    if called:
        message["tool_calls"] = [called[index] for index in sorted(called)]
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


def _add(message: Json, called: dict[int, Json], delta: Json) -> None:
    for name in ("content", "refusal", "reasoning_content"):
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for told in delta.get("tool_calls") or ():
        known = called.setdefault(told["index"], {"function": {"name": "", "arguments": ""}})
        known["id"] = told.get("id") or known.get("id")
        known["function"]["name"] += told["function"].get("name") or ""
        known["function"]["arguments"] += told["function"].get("arguments") or ""


def streamed(completion: Json, size: int) -> list[Json]:
    """Return a completion as chunks whose texts and arguments are cut into pieces of this size."""
    message = completion["choices"][0]["message"]
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "refusal", "content"):
        deltas += [{name: piece} for piece in _cut(message.get(name) or "", size)]
    for index, call in enumerate(message.get("tool_calls") or ()):
        head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        for piece in _cut(call["function"]["arguments"], size):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    finish = completion["choices"][0]["finish_reason"]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end: Json = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return [*chunks, end, {"choices": [], "usage": completion["usage"]}]


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]
