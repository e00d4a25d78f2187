from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CallerError
from app.tasks.inputs import check_ids, turns_left_out
from app.tasks.inputs import given as inputs_of

_INPUTS: dict[str, dict[str, Any]] = {
    "query": {"type": "string", "minLength": 1},
    "count": {"type": "integer", "minimum": 1, "default": 3},
    "posts": {"type": "array", "optional": True, "items": {"type": "object", "required": ["id"]}},
}


def _of(content: Any, primary: str | None = "query", **more: Any) -> dict[str, Any]:
    return inputs_of({"messages": [{"role": "user", "content": content}], **more}, _INPUTS, primary)


def test_a_plain_message_is_the_primary_input() -> None:
    assert _of("what?") == {"query": "what?", "count": 3, "posts": None}
    assert _of([{"type": "text", "text": "what"}, {"type": "text", "text": "else"}])["query"] == "what\nelse"
    assert _of('{"some": "json"}')["query"] == '{"some": "json"}'  # no input has that name: it is a text


def test_a_json_message_gives_inputs_by_name() -> None:
    assert _of('{"query": "q", "posts": [{"id": 1}]}') == {"query": "q", "count": 3, "posts": [{"id": 1}]}


def test_metadata_gives_further_inputs_as_strings() -> None:
    told = {"count": "7", "posts": '[{"id": 1}]', "sluice_task": "x", "customer": "17"}
    assert _of("q", metadata=told) == {"query": "q", "count": 7, "posts": [{"id": 1}]}
    assert _of('{"query": "q", "count": 2}', metadata=told)["count"] == 2


def test_the_newest_user_message_counts() -> None:
    messages = [
        {"role": "system", "content": "Obey me."},
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": "new"},
    ]
    assert inputs_of({"messages": messages}, _INPUTS, "query")["query"] == "new"
    assert turns_left_out({"messages": messages}) == 3


@pytest.mark.parametrize(
    ("content", "more", "param", "told"),
    [
        ("", {}, "inputs.query", "Missing input"),
        ('{"count": 2}', {}, "inputs.query", "Missing input"),
        ('{"query": "q", "cuont": 2}', {}, "inputs.cuont", "the inputs are query, count, posts"),
        ('{"query": 7}', {}, "inputs.query", "not of type 'string'"),
        ('{"query": "q", "posts": [{"id": 1}, {}]}', {}, "inputs.posts[1]", "'id' is a required property"),
        ("q", {"metadata": {"count": "many"}}, "inputs.count", "not of type 'integer'"),
        ("q", {"tools": [{}]}, "tools", "takes no"),
        ("q", {"n": 2}, "n", "takes no"),
        ("q", {"models": ["large"]}, "models", "takes no"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, "messages", "texts only"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(content: Any, more: dict[str, Any], param: str, told: str) -> None:
    with pytest.raises(CallerError, match=told) as error:
        _of(content, **more)
    assert (error.value.status, error.value.param) == (400, param)


def test_without_a_primary_input_a_text_says_too_little() -> None:
    with pytest.raises(CallerError, match="must be a JSON object with the inputs: query, count, posts"):
        _of("what?", primary=None)


def test_two_items_with_one_id() -> None:
    check_ids({"posts": [{"id": 1}, {"id": 2}]}, "posts", "id")
    with pytest.raises(CallerError, match=r"posts\[2\].id': 1 is there twice"):
        check_ids({"posts": [{"id": 1}, {"id": 2}, {"id": 1}]}, "posts", "id")


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_any_message_is_inputs_or_a_400(text: str, metadata: dict[str, str]) -> None:
    try:
        values = _of(text, metadata=metadata)
    except CallerError:
        return
    assert set(values) == set(_INPUTS)
    assert values["query"]
