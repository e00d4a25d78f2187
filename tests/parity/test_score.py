from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.parity.score import Contract, Said, Scored, agreement, contract_of, score

LABEL = {"type": "string", "enum": ["HIGH", "MEDIUM", "LOW"]}
POSTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "posts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"post_id": {"type": "integer"}, "relevance": LABEL, "reason": {"type": "string"}},
            },
        },
        "summary": {"type": "string"},
    },
}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Why is the sky blue? Explain it in a sentence."}]}
JSON_CHAT = {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": POSTS}}}
GOOD = "Air scatters blue light more strongly than red light."


def posts(*labels: str, **more: Any) -> dict[str, Any]:
    return {"posts": [{"post_id": n, "relevance": each, "reason": f"as {n}"} for n, each in enumerate(labels)], **more}


def said(value: Any) -> Said:
    return Said(value if isinstance(value, str) else orjson.dumps(value).decode(), "stop")


def judged(body: dict[str, Any], target: Any, reference: Any) -> Scored:
    return score(body, "chat", said(target), said(reference), contract_of(body))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (posts("HIGH", "LOW"), posts("HIGH", "LOW", summary="other words"), 1.0),
        (posts("HIGH", "LOW"), posts("HIGH", "HIGH"), 0.5),
        (posts("HIGH", "LOW"), {"posts": posts("HIGH", "LOW")["posts"][::-1]}, 1.0),
        (posts("HIGH", "LOW"), posts("HIGH"), 0.5),
        (posts(), posts(), None),
    ],
)
def test_labels_are_matched_by_id(one: Any, other: Any, same: float | None) -> None:
    assert agreement(POSTS, one, other) == same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.5, 0.6, 1.0),
        (0.5, 0.61, 0.0),
        (100.0, 109.0, 1.0),
        (100.0, 120.0, 0.0),
        (3, 4, 0.0),
        (float("inf"), float("inf"), 1.0),
        (float("inf"), 3, 0.0),
        (True, True, 1.0),
        ("a b", "c d", None),
    ],
)
def test_scores_are_the_same_where_they_are_near(one: Any, other: Any, same: float | None) -> None:
    assert agreement({"properties": {"x": {}}}, {"x": one}, {"x": other}) == same


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(("id", "a", "b")), inner, max_size=3),
    max_leaves=12,
)
SCHEMAS = st.recursive(
    st.sampled_from(({}, LABEL, {"type": "number"})),
    lambda inner: (
        st.fixed_dictionaries({"items": inner})
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from(("id", "a")), inner)})
    ),
    max_leaves=5,
)


@given(SCHEMAS, VALUES, VALUES)
def test_agreement_is_symmetric_and_whole_with_oneself(schema: Any, one: Any, other: Any) -> None:
    found = agreement(schema, one, other)
    assert found == agreement(schema, other, one)
    assert found is None or 0 <= found <= 1
    assert agreement(schema, one, one) in {None, 1.0}


def test_the_same_text_is_equal() -> None:
    assert judged(CHAT, GOOD, f"{GOOD}\n") == Scored("equal", 0.0)


def test_free_text_without_faults_is_for_the_judge() -> None:
    assert judged(CHAT, GOOD, "Blue light is scattered more by the air.") == Scored("judge", None)


def test_an_answer_that_is_no_use_loses() -> None:
    assert judged(CHAT, "", GOOD) == Scored("faults", -1.0)
    assert judged(CHAT, GOOD, "I'm sorry, but I can't help with that.") == Scored("faults", 1.0)
    assert judged(CHAT, "", "I'm sorry, but I can't help with that.") == Scored("faults", 0.0)


def test_a_broken_contract_loses() -> None:
    assert judged(JSON_CHAT, "{", posts("HIGH")) == Scored("contract", -1.0)
    assert judged(JSON_CHAT, posts("HIGH"), "no JSON") == Scored("contract", 1.0)
    assert judged(JSON_CHAT, "{", "no JSON") == Scored("contract", 0.0)


def test_equal_labels_are_a_tie_and_the_judge_is_asked_of_the_others() -> None:
    assert judged(JSON_CHAT, posts("HIGH", "LOW", summary="x"), posts("HIGH", "LOW")) == Scored("contract", 0.0)
    assert judged(JSON_CHAT, posts("HIGH", "LOW", "LOW", "LOW"), posts("HIGH", "LOW", "LOW", "HIGH")) == Scored(
        "judge", None, 0.25, by_contract=True
    )


def test_a_task_reads_by_its_own_contract() -> None:
    def read(text: str, finish: str | None) -> Any:
        if finish != "stop":
            raise ValueError("cut")
        return {"posts": [{"post_id": 1, "relevance": text}]}

    contract = Contract(POSTS, read)
    assert score(CHAT, None, Said("HIGH", "stop"), Said("HIGH ", "stop"), contract).method == "equal"
    assert score(CHAT, None, Said("HIGH", "length"), Said("LOW", "stop"), contract) == Scored("contract", -1.0)
    assert score(CHAT, None, Said("HIGH", "stop"), Said("LOW", "stop"), contract) == Scored(
        "judge", None, 1.0, by_contract=True
    )
