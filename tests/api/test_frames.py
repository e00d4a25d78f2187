from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.frames import DONE, Framer
from app.backend.base import Event
from app.trace import Usage
from tests.schema import events_of, stream_violations


def _event(**chunk: Any) -> Event:
    value = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", **chunk}
    return Event(b"data: " + orjson.dumps(value) + b"\n\n", value)


def _said(index: int = 0, finish: str | None = None, **delta: Any) -> Event:
    return _event(choices=[{"index": index, "delta": delta, "finish_reason": finish}])


def _usage(**told: Any) -> Event:
    return _event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, **told})


_ROLE = _said(role="assistant", content="")
_END = _said(finish="stop")


def _framed(*events: Event, wants_usage: bool = False, told: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    framer = Framer("model", wants_usage=wants_usage, holds_last=told is not None)
    out = b"".join(framer.frames([each]) for each in events)
    out += framer.end(Usage(3, 4, estimated=True), told)
    assert list(stream_violations(out, ended=True)) == []
    *chunks, done = events_of(out)
    assert done == b"[DONE]"
    return [orjson.loads(each) for each in chunks]


def test_bytes_that_need_no_change_are_relayed_as_they_came() -> None:
    events = [_ROLE, _said(content="x"), _END]
    framer = Framer("model", wants_usage=False, holds_last=False)
    assert framer.frames(events) + framer.end(Usage()) == b"".join(each.raw for each in events) + DONE


_DELTAS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(("assistant", "", None)),
            "content": st.sampled_from(("", "x", None)),
            "tool_calls": st.just([{"index": 0}]),
        },
    ),
)
_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from((0, 1, None)),
        "delta": _DELTAS,
        "finish_reason": st.sampled_from((None, "stop")),
        "logprobs": st.none(),
    },
)
_CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(_CHOICES, max_size=2)},
    optional={
        "id": st.sampled_from(("a", "b", None)),
        "object": st.sampled_from(("chat.completion.chunk", "text")),
        "created": st.sampled_from((1, 2)),
        "model": st.just("m"),
        "usage": st.sampled_from((None, {"prompt_tokens": 1})),
    },
)


class _Slow(Framer):
    """Takes the long way with every event."""

    def _needs_nothing(self, each: Event) -> bool:  # noqa: ARG002
        return False


@given(st.lists(_CHUNKS, max_size=6), st.booleans(), st.booleans())
def test_the_short_way_gives_what_the_long_one_does(chunks: list[Any], wants_usage: bool, holds_last: bool) -> None:
    events = [Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk) for chunk in chunks]
    events = [_ROLE, *events]
    ways = [kind("model", wants_usage=wants_usage, holds_last=holds_last) for kind in (Framer, _Slow)]
    short, long = (way.frames(events) + way.end(Usage(1, 2)) for way in ways)
    assert short == long


def test_every_chunk_has_the_identity_of_the_first() -> None:
    other = Event(b"", {**_said(content="x").chunk, "id": "b", "created": 2, "model": "n", "object": "text"})
    chunks = _framed(_ROLE, other, _END)
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("a", 1, "m")}


def test_a_stream_without_identity_gets_one() -> None:
    (chunk, *_) = _framed(Event(b"", {"choices": [{"delta": {"content": "x"}}]}), Event(b"", _END.chunk))
    assert chunk["id"].startswith("chatcmpl-")
    assert (chunk["model"], chunk["object"]) == ("model", "chat.completion.chunk")


def test_the_role_comes_first_and_once() -> None:
    chunks = _framed(_said(content="x"), _said(role="assistant"), _said(role="assistant", content="y"), _END)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": "x"}
    assert [delta.get("content") for delta in deltas] == ["x", "y", None]


def test_every_choice_begins_with_its_role() -> None:
    chunks = _framed(_ROLE, _said(1, content="x"), _said(content="y"), _said(1, "stop"), _END)
    assert chunks[1]["choices"][0]["delta"]["role"] == "assistant"


def test_a_role_with_a_finish_reason_is_kept() -> None:
    chunks = _framed(_ROLE, _said(content="x"), _said(role="assistant", finish="stop"))
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_comes_before_the_first_choice_is_left_out() -> None:
    assert len(_framed(_event(choices=[], prompt_filter_results=[]), _ROLE, _END)) == 2


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_comes_down_if_it_was_asked_for(*, wanted: bool) -> None:
    chunks = _framed(_ROLE, _END, _usage(cost=0.5), wants_usage=wanted)
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False, False, True][: 2 + wanted]
    assert not wanted or chunks[-1]["usage"]["cost"] == 0.5


def test_usage_that_a_backend_never_told_is_an_estimate_that_says_so() -> None:
    chunks = _framed(_ROLE, _END, wants_usage=True)
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "estimated": True}
    assert chunks[-1]["choices"] == []


@pytest.mark.parametrize("events", [(_ROLE, _END), (_ROLE, _END, _usage()), (_said(finish="stop", content="x"),)])
@pytest.mark.parametrize("wanted", [True, False])
def test_performance_is_in_the_last_chunk(events: tuple[Event, ...], *, wanted: bool) -> None:
    chunks = _framed(*events, wants_usage=wanted, told={"totalMs": 1})
    assert ["performance" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert bool(chunks[-1].get("usage")) is wanted


def test_what_is_held_back_is_not_lost_when_the_stream_breaks() -> None:
    framer = Framer("model", wants_usage=False, holds_last=True)
    out = framer.frames([_ROLE, _said(content="x")]) + framer.rest()
    assert [orjson.loads(each)["choices"][0]["delta"]["content"] for each in events_of(out)] == ["", "x"]
    assert framer.rest() == b""


def test_unknown_fields_pass() -> None:
    strange = Event(b"", {**_said(content="x", reasoning="r", extra_content={"a": 1}).chunk, "x_new": [1], "id": "b"})
    chunk = _framed(_ROLE, strange, _END)[1]
    assert chunk["x_new"] == [1]
    assert chunk["choices"][0]["delta"]["extra_content"] == {"a": 1}
