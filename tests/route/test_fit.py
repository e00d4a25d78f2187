from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.route.fit import ANSWER_TOKENS, fit, room_for_answer, tokens_of_tools

Message = dict[str, Any]


def tokens(messages: list[Message]) -> int:
    return sum(each["size"] for each in messages)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Conversations of turns with tool calls, and system messages anywhere."""
    found: list[Message] = []
    for number in range(draw(st.integers(1, 8))):
        shape = draw(st.sampled_from(["u", "ua", "uta", "utta", "uu", "su", "ua"]))
        for place, role in enumerate(shape):
            size = draw(st.integers(1, 50))
            match role:
                case "t":
                    name = f"{number}.{place}"
                    found += [
                        {"role": "assistant", "tool_calls": [{"id": name}], "size": size},
                        {"role": "tool", "tool_call_id": name, "size": 1},
                    ]
                case _:
                    found.append({"role": {"u": "user", "a": "assistant", "s": "system"}[role], "size": size})
    return found


@given(conversations(), st.integers(0, 800))
def test_what_is_left_fits_and_is_whole(messages: list[Message], budget: int) -> None:
    fitted = fit(messages, budget, tokens)
    if fitted is None:
        return
    left, dropped = fitted
    assert tokens(left) <= budget
    assert (dropped == 0) == (left == messages)
    assert left[-1] is messages[-1]
    assert [each for each in left if each["role"] == "system"] == [e for e in messages if e["role"] == "system"]
    calls = {call["id"] for each in left for call in each.get("tool_calls", ())}
    assert {each["tool_call_id"] for each in left if each["role"] == "tool"} == calls
    talk = [each for each in left if each["role"] != "system"]
    assert talk[0]["role"] == "user"
    assert talk == [each for each in messages if each["role"] != "system"][-len(talk) :]


@given(conversations(), st.integers(0, 800))
def test_no_more_is_dropped_than_must_be(messages: list[Message], budget: int) -> None:
    assert (fit(messages, budget, tokens) == (messages, 0)) == (tokens(messages) <= budget)
    smaller, larger = fit(messages, budget, tokens), fit(messages, budget + 50, tokens)
    assert smaller is None or (larger is not None and larger[1] <= smaller[1])


def test_none_where_not_even_the_newest_turn_fits() -> None:
    assert fit([{"role": "system", "size": 5}, {"role": "user", "size": 5}], 9, tokens) is None


def test_room() -> None:
    assert room_for_answer({}) == ANSWER_TOKENS
    assert room_for_answer({"max_tokens": 5, "max_completion_tokens": 7}) == 7
    assert tokens_of_tools({"tools": [{"a": "x" * 400}]}) > 100
    assert tokens_of_tools({"tools": None}) == 0
