from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backend.base import Event
from app.backend.shape import good_chunk, plain_text
from app.trace import Usage
from app.transcript import Transcript


def _take(*deltas: dict[str, Any], finish: str | None = None) -> Transcript:
    script = Transcript()
    for delta in deltas:
        script.take({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    if finish:
        script.take({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return script


def test_text_and_reasoning_are_kept_apart() -> None:
    script = _take(
        {"role": "assistant", "content": ""}, {"reasoning_content": "r"}, {"reasoning": "s"}, {"content": "x"}
    )
    assert (script.reasoning, script.text, script.contents, script.exact) == (["r", "s"], ["x"], 3, True)
    assert script.committed
    assert not script.finished


@pytest.mark.parametrize("delta", [{"tool_calls": [{"index": 0}]}, {"refusal": "no"}, {"audio": {"id": "a"}}])
def test_what_cannot_be_told_again_is_not_exact(delta: dict[str, Any]) -> None:
    script = _take({"content": "x"}, delta)
    assert not script.exact
    assert script.contents == 2


def test_a_role_alone_is_no_commitment_but_an_end_is() -> None:
    assert not _take({"role": "assistant", "content": ""}).committed
    assert _take({"role": "assistant"}, finish="stop").committed


def test_it_is_finished_when_every_choice_is() -> None:
    script = _take({"content": "x"}, finish="stop")
    seen = [(script.finished, script.exact)]
    script.take({"choices": [{"index": 1, "delta": {"content": "y"}}]})
    seen.append((script.finished, script.exact))
    script.take({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]})
    assert [*seen, (script.finished, script.exact)] == [(True, True), (False, False), (True, False)]
    assert script.finish == {0: "stop", 1: "length"}


def test_usage_is_the_backends_or_an_estimate_that_says_so() -> None:
    script = _take({"content": "x"}, {"content": "y"})
    assert script.usage(9) == Usage(9, 2, estimated=True)
    script.take({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert script.usage(9) == Usage(3, 4)


def test_groqs_usage_counts_too() -> None:
    script = Transcript()
    script.take({"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}})
    assert script.usage() == Usage(3, 4)


def test_time_per_token_needs_two() -> None:
    assert _take({"content": "x"}).per_token_ms() is None
    assert (_take({"content": "x"}, {"content": "y"}).per_token_ms() or 0) > 0


_ANY: st.SearchStrategy[Any] = st.sampled_from((None, 0, 1, "", "x", "stop", [], {}, True))
_DELTAS = st.one_of(_ANY, st.dictionaries(st.sampled_from(("content", "role", "tool_calls")), _ANY, max_size=2))
_CHOICES = st.fixed_dictionaries(
    {"index": st.sampled_from((0, 0, 0, 1, None)), "delta": _DELTAS, "finish_reason": st.sampled_from((None, "stop"))},
    optional={"logprobs": _ANY},
)
_CHUNKS = st.fixed_dictionaries(
    {"choices": st.one_of(_ANY, st.lists(st.one_of(_ANY, _CHOICES), max_size=2))},
    optional={"usage": _ANY, "error": _ANY, "x_groq": _ANY},
)


def _state(script: Transcript) -> tuple[Any, ...]:
    return script.text, script.reasoning, script.exact, script.choices, script.finish, script.contents


@given(_CHUNKS)
def test_an_event_with_nothing_but_text_is_good_and_says_just_that(chunk: dict[str, Any]) -> None:
    text = plain_text(chunk)
    if text is not None:
        assert good_chunk(chunk)
        said, taken = Transcript(), Transcript()
        said.hear(Event(b"", chunk))
        taken.take(chunk)
        assert _state(said) == _state(taken)


def test_the_usual_event_is_one_with_nothing_but_text() -> None:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "logprobs": None}
    assert plain_text({"id": "a", "usage": None, "choices": [choice]}) == "x"
    assert plain_text({"choices": [{**choice, "finish_reason": "stop"}]}) is None
