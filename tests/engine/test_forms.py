"""Schemas and tool calls with random weights: valid all the same."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.process import Engine

FLAT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["name", "age", "ok"],
    "additionalProperties": False,
}
POSTS = {
    "type": "object",
    "properties": {
        "relevant_posts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "score": {"enum": ["high", "medium", "low"]},
                    "why": {"type": "string"},
                },
                "required": ["id", "score", "why"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["relevant_posts"],
    "additionalProperties": False,
}
STRINGS = {"type": "object", "properties": {c: {"type": "string"} for c in "abc"}, "required": ["a", "b", "c"]}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"anyOf": [{"type": "number"}, {"type": "null"}, {"type": "string"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
PATTERNS = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "id": {"type": "string", "format": "uuid"},
        "level": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["code", "id", "level"],
    "additionalProperties": False,
}
OPTIONAL = {
    "type": "object",
    "properties": {
        "note": {"type": "string", "minLength": 3, "maxLength": 30},
        "extra": {"type": "object", "properties": {"x": POSTS}, "required": ["x"], "additionalProperties": False},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 8}, "minItems": 1, "maxItems": 4},
    },
    "additionalProperties": False,
}
MIXED = {"anyOf": [FLAT, {"type": "array", "items": {"type": "integer"}, "minItems": 2}, {"const": "nothing"}]}
SCHEMAS: dict[str, Any] = {
    "flat": FLAT,
    "posts": POSTS,
    "strings": STRINGS,
    "tree": TREE,
    "patterns": PATTERNS,
    "optional": OPTIONAL,
    "mixed": MIXED,
    "object": None,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": FLAT}},
    {"type": "function", "function": {"name": "stop_it"}},
]
NAP = {
    "type": "function",
    "function": {
        "name": "nap",
        "parameters": {
            "type": "object",
            "properties": {"h": {"enum": [1, 2]}},
            "required": ["h"],
            "additionalProperties": False,
        },
    },
}


def form(name: str) -> dict[str, Any]:
    if SCHEMAS[name] is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": name, "schema": SCHEMAS[name]}}


def check(name: str, text: str) -> None:
    document = json.loads(text)
    jsonschema.validate(document, SCHEMAS[name] or {"type": "object"}, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("limit", [110, 300])
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_met_even_when_tokens_run_out(engine: Engine, qwen: Path, name: str, limit: int) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(
            lambda s: engine.content(qwen, seed=s, max_tokens=limit, response_format=form(name)), range(6)
        )
        for answer in answers:
            check(name, answer)


def test_a_constant_is_said_whatever_the_model_thinks(engine: Engine, qwen: Path) -> None:
    schema = {"const": {"answer": ["forty-two", 42, None]}}
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    body = engine.chat(qwen, response_format=wanted, max_tokens=200)
    assert json.loads(body["choices"][0]["message"]["content"]) == schema["const"]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_document_that_the_closing_rule_ended_says_length(engine: Engine, qwen: Path) -> None:
    endless = {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 3}
    wanted = {"type": "json_schema", "json_schema": {"name": "e", "schema": endless}}
    reasons = set()
    for seed in range(4):
        choice = engine.chat(qwen, response_format=wanted, max_tokens=60, seed=seed)["choices"][0]
        jsonschema.validate(json.loads(choice["message"]["content"]), endless)
        reasons.add(choice["finish_reason"])
    assert "length" in reasons


def test_grammar_and_free_requests_share_a_batch(engine: Engine, qwen: Path) -> None:
    def ask(number: int) -> tuple[int, str]:
        extra: dict[str, Any] = {"response_format": form("posts")} if number % 2 else {}
        return number, engine.content(qwen, f"mixed {number}", seed=number, max_tokens=150, **extra)

    free = {number: ask(number)[1] for number in (0, 2, 4)}
    with ThreadPoolExecutor(16) as pool:
        for number, text in pool.map(ask, range(16)):
            if number % 2:
                check("posts", text)
            elif number in free:
                assert text == free[number]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "format": "zork"}, "format"),
        ({"type": "string", "pattern": "(?=x)x"}, ""),
        ({"$ref": "http://example.invalid/schema"}, "retriev"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "nsatisfiable"),
        ({"type": 5}, "type"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_a_400(engine: Engine, qwen: Path, schema: Any, why: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "x"}]
    error = engine.error("/v1/chat/completions", 400, model=str(qwen), messages=messages, response_format=wanted)
    assert why in error["message"]
    assert error["param"] == "response_format.json_schema.schema"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_call_is_made_and_fits(engine: Engine, qwen: Path, choice: Any) -> None:
    for seed in range(5):
        body = engine.chat(qwen, tools=TOOLS, tool_choice=choice, seed=seed, max_tokens=160)
        (answer,) = body["choices"]
        (call,) = answer["message"]["tool_calls"]
        assert answer["message"]["content"] is None
        assert answer["finish_reason"] in {"tool_calls", "length"}  # length: the closing rule had to end it
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "weather":
            jsonschema.validate(arguments, FLAT)
        else:
            assert choice == "required"
            assert call["function"]["name"] == "stop_it"


def test_a_forced_call_that_ends_by_itself_says_tool_calls(engine: Engine, qwen: Path) -> None:
    choice = {"type": "function", "function": {"name": "nap"}}
    (answer,) = engine.chat(qwen, tools=[*TOOLS, NAP], tool_choice=choice, max_tokens=200)["choices"]
    assert answer["finish_reason"] == "tool_calls"
    assert json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"])["h"] in {1, 2}


def test_a_forced_call_streams_with_an_index(engine: Engine, qwen: Path) -> None:
    messages = [{"role": "user", "content": "x"}]
    options: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 160, "seed": 1}
    events = engine.stream("/v1/chat/completions", model=str(qwen), messages=messages, **options)
    deltas = [e["choices"][0] for e in itertools.islice(events, len(events) - 1) if "choices" in e]
    calls = [d["delta"]["tool_calls"][0] for d in deltas if d["delta"].get("tool_calls")]
    assert [call["index"] for call in calls] == [0]
    assert deltas[-1]["finish_reason"] in {"tool_calls", "length"}


def test_tools_that_the_template_cannot_show_are_refused(engine: Engine, folders: dict[str, Path]) -> None:
    messages = [{"role": "user", "content": "x"}]
    error = engine.error("/v1/chat/completions", 400, model=str(folders["phi"]), messages=messages, tools=TOOLS)
    assert error["param"] == "tools"


def test_tool_choice_none_hides_the_tools(engine: Engine, qwen: Path) -> None:
    bare = engine.chat(qwen, max_tokens=4)["usage"]["prompt_tokens"]
    assert engine.chat(qwen, tools=TOOLS, tool_choice="none", max_tokens=4)["usage"]["prompt_tokens"] == bare
    assert engine.chat(qwen, tools=TOOLS, max_tokens=4)["usage"]["prompt_tokens"] > bare
