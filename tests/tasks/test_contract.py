from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.prompts.spec import Output
from app.tasks.contract import Broken, Good, judge

_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "items"],
    "properties": {
        "title": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "grade"],
                "properties": {"id": {"type": "integer", "x-one-of": "posts.id"}, "grade": {"enum": ["A", "B"]}},
            },
        },
    },
}
_OUTPUT = Output.model_validate({"format": "json_schema", "schema": _SCHEMA})
_VALUES = {"posts": [{"id": 1}, {"id": 2}, {"id": 3}]}
_GOOD = {"title": "It's a title, isn't it", "items": [{"id": 1, "grade": "A"}, {"id": 3, "grade": "B"}]}
_TEXT = json.dumps(_GOOD)


def _judged(text: str, finish: str = "stop") -> Good | Broken:
    return judge(_OUTPUT, text, finish, _VALUES)


@pytest.mark.parametrize(
    "text",
    [
        _TEXT,
        f"  {_TEXT}\n",
        f"```json\n{_TEXT}\n```",
        f"Here it is:\n```json\n{_TEXT}\n```\nAnything else?",
        f"Sure! {_TEXT} I hope this helps.",
        f"<think>Which {{braces}}?</think>{_TEXT}",
    ],
)
def test_json_is_found_where_models_put_it(text: str) -> None:
    assert _judged(text) == Good(_GOOD)


@pytest.mark.parametrize(
    "text",
    [
        _TEXT[:-1] + ",}",
        _TEXT.replace('"id"', "id"),
        _TEXT.replace("}]", "},]"),
        "{'title': 'plain', 'items': [{'id': 1, 'grade': 'A'}]}",
        '{"title": "plain" "items": []}',
    ],
)
def test_punctuation_is_repaired(text: str) -> None:
    judged = _judged(text)
    assert isinstance(judged, Good)
    assert judged.repaired
    assert judged.value["title"] in {_GOOD["title"], "plain"}


@pytest.mark.parametrize(
    ("text", "finish", "told"),
    [
        ("", "stop", "empty"),
        ("No.", "stop", "not the JSON"),
        (_TEXT[:-10], "length", "cut off"),
        (_TEXT[:-10], "stop", "not the JSON"),
        ('{"title": "t"}', "stop", "'items' is a required property"),
        ('{"title": "t", "items": [{"id": 4, "grade": "A"}]}', "stop", r"items\[0\].id: 4 is not one of \[1, 2, 3\]"),
        ('{"title": "t", "items": [{"id": 1, "grade": "C"}]}', "stop", r"items\[0\].grade"),
        ('{"title": "t", "items": [], "more": 1}', "stop", "more"),
        ("[1, 2]", "stop", "is not of type 'object'"),
        ("null", "stop", "is not of type 'object'"),
    ],
)
def test_what_breaks_the_contract_is_told(text: str, finish: str, told: str) -> None:
    judged = _judged(text, finish)
    assert isinstance(judged, Broken)
    assert re.search(told, judged.why)


def test_a_whole_document_that_filled_its_limit_is_good() -> None:
    assert _judged(_TEXT, "length") == Good(_GOOD)


def test_an_id_is_spoken_of_once() -> None:
    items = [{"id": 2, "grade": "A"}, {"id": 2, "grade": "B"}, {"id": 1, "grade": "B"}]
    judged = _judged(json.dumps({"title": "t", "items": items}))
    assert isinstance(judged, Good)
    assert judged.value["items"] == [items[0], items[2]]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text(st.characters(categories=("L", "Nd", "Zs", "Po"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), _JSON, min_size=1, max_size=3), st.data())
def test_a_broken_off_document_is_never_completed(value: dict[str, Any], data: st.DataObject) -> None:
    """Whatever is cut off a document, the rest is not taken for the whole."""
    text = json.dumps(value, ensure_ascii=False)
    cut = data.draw(st.integers(1, len(text) - 1))
    output = Output.model_validate({"format": "json_schema", "schema": {"const": value}})
    judged = judge(output, text[:cut], "length", {})
    assert isinstance(judged, Broken)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), _JSON, min_size=1, max_size=3))
def test_what_a_model_writes_well_is_read_exactly(value: dict[str, Any]) -> None:
    output = Output.model_validate({"format": "json_schema", "schema": {"type": "object"}})
    assert judge(output, json.dumps(value), "stop", {}) == Good(value)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_whatever_a_model_says_is_judged(text: str) -> None:
    judged = _judged(text)
    assert isinstance(judged, Broken)
    assert judged.why.endswith(".")


def test_checks_of_free_text() -> None:
    output = Output(format="markdown", checks=("refusal", "empty"))
    assert judge(output, "# Scales\n\nPlay C.", "stop", {}) == Good("# Scales\n\nPlay C.")
    refused = judge(output, "I'm sorry, but I can't help with that request.", "stop", {})
    assert isinstance(refused, Broken)
    assert "refusal" in refused.why
    assert isinstance(judge(Output(), "   ", "stop", {}), Broken)


def test_references_lead_nowhere_else() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "integer"}}}
    output = Output.model_validate({"format": "json_schema", "schema": schema})
    assert judge(output, '{"a": 1}', "stop", {}) == Good({"a": 1})
    assert isinstance(judge(output, '{"a": "x"}', "stop", {}), Broken)
