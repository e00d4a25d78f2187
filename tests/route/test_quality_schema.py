"""The schema check against a full validator: never a miss that the full one does not see."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.route.quality import inspect
from app.route.quality_schema import conforms, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = 3_000  # drawn by a fixed seed: Hypothesis takes a minute for as many schemas, this a second
NAMES = ("a", "b", "c")
TYPES = ("object", "array", "string", "boolean", "null", "number", "integer")
LEAVES = (None, True, False, -1, 0, 1, 2, 0.0, 1.0, 1.5, "", "a", "ab", "abcd", "é")
BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def _value(rng: random.Random, depth: int = 2) -> Any:
    pick = rng.random()
    if depth and pick < 0.25:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if depth and pick < 0.55:
        return {name: _value(rng, depth - 1) for name in NAMES if rng.random() < 0.5}
    return rng.choice(LEAVES)


def _schemas(rng: random.Random, depth: int) -> list[Any]:
    return [_schema(rng, depth - 1) for _ in range(rng.randrange(1, 3))]


def _schema(rng: random.Random, depth: int = 3) -> Any:
    if depth == 0:
        return rng.choice((True, True, False, {}, {"type": rng.choice(TYPES)}))
    draws: dict[str, Callable[[], Any]] = {
        "type": lambda: rng.choice(TYPES) if rng.random() < 0.5 else rng.sample(TYPES, 2),
        "enum": lambda: [_value(rng) for _ in range(3)],
        "const": lambda: _value(rng),
        "required": lambda: rng.sample(NAMES, 1),
        "properties": lambda: {name: _schema(rng, depth - 1) for name in NAMES if rng.random() < 0.6},
        "additionalProperties": lambda: _schema(rng, depth - 1),
        "items": lambda: _schema(rng, depth - 1),
        "prefixItems": lambda: _schemas(rng, depth),
        "allOf": lambda: _schemas(rng, depth),
        "anyOf": lambda: _schemas(rng, depth),
        "$ref": lambda: rng.choice(("#/$defs/x", "#/$defs/y")),
        **dict.fromkeys(BOUNDS, lambda: rng.randrange(4)),
    }
    return {name: draws[name]() for name in rng.sample(list(draws), rng.randrange(1, 4))}


def _root(rng: random.Random) -> dict[str, Any]:
    defs = {"x": {"type": rng.choice(TYPES)}, "y": {"items": {"$ref": "#/$defs/x"}, "maxProperties": 2}}
    return {**_schema(rng), "$defs": defs}


UNJUDGED: dict[str, Any] = {
    "pattern": "^a$",
    "patternProperties": {"^a": False},
    "not": {"type": "integer"},
    "oneOf": [{"type": "integer"}, {"minimum": 1}],
    "uniqueItems": True,
    "multipleOf": 2,
    "if": {"type": "object"},
    "then": {"required": ["a"]},
    "contains": {"type": "string"},
    "dependentRequired": {"a": ["b"]},
    "propertyNames": {"maxLength": 0},
}


def test_on_the_keywords_that_are_judged_it_agrees_with_a_full_validator() -> None:
    rng = random.Random(20)
    verdicts = Counter[bool]()
    for _ in range(CASES):
        schema, value = _root(rng), _value(rng)
        full = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert conforms(value, schema) == full, (schema, value)
        verdicts[full] += 1
    assert min(verdicts[True], verdicts[False]) > CASES / 5


def test_with_any_keyword_a_miss_is_always_a_miss() -> None:
    rng = random.Random(21)
    misses = 0
    for _ in range(CASES):
        more = {name: UNJUDGED[name] for name in rng.sample(list(UNJUDGED), 2)}
        schema, value = {**_root(rng), **more}, _value(rng)
        if not conforms(value, schema):
            misses += 1
            assert not jsonschema.Draft202012Validator(schema).is_valid(value), (schema, value)
    assert misses > CASES / 5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.recursive(
        VALUES, lambda inner: st.dictionaries(st.sampled_from(["$ref", "items", "type", "enum", "anyOf"]), inner)
    )
)
def test_no_schema_makes_it_raise(schema: Any) -> None:
    assert conforms({"a": [1]}, schema) in {True, False}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "$defs": {}},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#anchor"},
        {"pattern": "^(a+)+$"},
    ],
)
def test_no_schema_loops_fetches_or_runs_an_expression(schema: dict[str, Any]) -> None:
    assert conforms("a" * 60 + "!", schema)


def test_a_large_value_is_judged_within_the_budget() -> None:
    schema = {"type": "array", "items": {"enum": [str(n) for n in range(500)]}}
    start = time.perf_counter()
    assert conforms(["499"] * 200_000, schema)
    assert time.perf_counter() - start < 0.2


def test_a_recursive_schema_is_followed_into_the_value() -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}, "required": ["kids"]}
    assert conforms({"kids": [{"kids": []}]}, tree)
    assert not conforms({"kids": [{"kids": [{}]}]}, tree)


def test_a_pointer_is_unescaped() -> None:
    schema = {"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {"type": "string"}}}
    assert conforms("x", schema)
    assert not conforms(1, schema)


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "[" * 2_000 + "]" * 2_000, str(10**30), " {} \n"])
def test_what_a_lenient_parser_reads_is_json(text: str) -> None:
    parse_json(text)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "[NaN]", "[1,]", "x {}"])
def test_what_no_parser_reads_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_an_answer_that_continues_a_prefill_is_judged_with_it() -> None:
    messages = [{"role": "user", "content": "JSON"}, {"role": "assistant", "content": '{"a": '}]
    body = {"messages": messages, "response_format": {"type": "json_object"}}
    assert inspect(body, "1}", kind=None, finish_reason="stop") == ()
    assert inspect(body, "1", kind=None, finish_reason="stop") == ("schema_miss",)
