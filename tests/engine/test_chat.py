from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.chat import Marks, Piece, Splitter, normalised
from app.errors import CallerError

MARKS = Marks("<think>", "</think>", "<tool_call>", "</tool_call>")


def run(pieces: list[str], state: str = "content") -> list[Piece]:
    splitter = Splitter(MARKS, json.loads, state)
    found = [piece for text in pieces for piece in splitter.feed(text)]
    return found + splitter.flush()


def joined(pieces: list[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


ANSWER = '<think>\nlet me see</think>It is<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call> done'


@given(st.lists(st.integers(0, len(ANSWER)), max_size=10))
def test_an_answer_is_split_the_same_however_it_arrives(places: list[int]) -> None:
    edges = [0, *sorted(places), len(ANSWER)]
    pieces = run([ANSWER[a:b] for a, b in itertools.pairwise(edges)])
    assert joined(pieces, "reasoning") == "let me see"
    assert joined(pieces, "content") == "It is done"
    (call,) = [piece.call for piece in pieces if piece.call is not None]
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}


def test_what_is_no_call_is_shown_and_not_lost() -> None:
    assert joined(run(["<tool_call>{broken</tool_call>"]), "content") == "{broken"
    assert joined(run(["so <tool_call>{cut"]), "content") == "so {cut"
    assert joined(run(["ends with <tool_"]), "content") == "ends with <tool_"


def test_an_answer_that_begins_in_its_reasoning() -> None:
    pieces = run(["hm", "m</thi", "nk>\n\nyes"], "reasoning")
    assert joined(pieces, "reasoning") == "hmm"
    assert joined(pieces, "content").strip() == "yes"


@pytest.mark.parametrize("arguments", ["{", "[1", "not json"])
def test_arguments_that_are_no_json_are_named(arguments: str) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    with pytest.raises(CallerError) as caught:
        normalised([{"role": "assistant", "tool_calls": [call]}])
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


def test_several_calls_in_one_block() -> None:
    splitter = Splitter(Marks(call_start="[", call_end="]"), lambda _: [{"name": "a", "arguments": "x"}] * 2)
    assert [p.kind for p in splitter.feed("[..]")] == ["call", "call"]
    assert splitter.calls == 2
