from __future__ import annotations

import asyncio
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backend.base import Event, apart
from app.backend.mould import Mould
from app.backend.openai_http import HttpEventStream, OpenAIBackend
from app.config import BackendConfig
from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SHAPES = (
    b'{"id":"a","created":1,"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}],"usage":null}',
    b'{"id":"a","created":1,"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}],"usage":null}',
    b'{"id": "a", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "%b"}, "finish_reason": null}]}',
    b'{"content":"x","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"%b","content":"x"},"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":"stop"}]}',
)
_ODD = (
    b"", b'"', b"\\", b'\\"', b"\\n", b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b"\\x", "é".encode(), b"\xff", b"\x01",
    b'x","y', b'x"}}],"error":{"message":"y"},"z":[{"a":{"b":"c', b'x","content":"y', b'","', b"\\\\", b"content",
)  # fmt: skip
_INSIDE = st.one_of(
    st.sampled_from(_ODD),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).map(lambda it: orjson.dumps(it)[1:-1]),
)
_OTHERS = (b'{"choices":[],"usage":{"prompt_tokens":1}}', b"[1]", b"{", b"[DONE]", b'{"error":{"message":"x"}}')
_EVENTS = st.one_of(
    st.tuples(st.sampled_from(_SHAPES), _INSIDE).map(lambda each: each[0] % each[1]), st.sampled_from(_OTHERS)
)


class _Reply:
    """A response that arrives in these pieces."""

    status = 200

    def __init__(self, pieces: list[bytes]) -> None:
        self.headers: Mapping[str, str] = {}
        self._pieces = [piece for piece in pieces if piece]
        self._take: Callable[[bytes], bool] = lambda _: False

    async def some(self) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if not self._take(piece):
                return piece
        return b""

    def tap(self, take: Callable[[bytes], bool]) -> None:
        self._take = take

    async def read(self, limit_bytes: int) -> bytes:
        raise NotImplementedError

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _Unlearned(Mould):
    def fits(self, data: bytes) -> bool:  # noqa: ARG002
        return False

    def only(self, data: bytes) -> None:  # noqa: ARG002
        return None


class _Unhurried(asyncio.SelectorEventLoop):
    """A loop on whose clock every look is a while after the one before."""

    _now_s = 0.0

    def time(self) -> float:
        self._now_s += 0.01
        return self._now_s


def _heard(
    pieces: list[bytes], mould: Mould, takes: Iterator[bool] | None = None
) -> tuple[list[Event], str, int, bool]:
    backend = OpenAIBackend.__new__(OpenAIBackend)
    backend.config = BackendConfig(name="b", base_url="http://b/v1")
    stream = HttpEventStream(_Reply(pieces), backend, 1 << 20)
    stream._mould = mould
    events: list[Event] = []
    error = ""

    def take(event: Event) -> bool:
        taken = next(takes) if takes is not None else False
        if taken:
            events.append(event)
        return taken

    async def pull() -> None:
        stream.pass_on(take)
        while got := await stream.batch():
            events.extend(got)

    try:
        with asyncio.Runner(loop_factory=_Unhurried) as runner:
            runner.run(pull())
    except SluiceError as failed:
        error = failed.message
    return events, error, stream.malformed, stream.whole


def _cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in at})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(_EVENTS, max_size=12), st.one_of(st.none(), st.lists(st.integers(0, 5000), max_size=4)))
def test_events_taken_together_are_those_taken_one_by_one(payloads: list[bytes], at: list[int] | None) -> None:
    pieces = [b"data: %b\n\n" % each for each in payloads]
    if at is not None:
        pieces = _cut(b"".join(pieces), at)
    (short, *told), (long, *wanted) = _heard(pieces, Mould()), _heard(pieces, _Unlearned())
    assert told == wanted
    fields = [[(each.raw, each.chunk, each.texts) for each in apart(events)] for events in (short, long)]
    assert fields[0] == fields[1]
    assert b"".join(each.raw for each in short) == b"".join(each.raw for each in long)


@given(st.lists(_EVENTS, max_size=12), st.one_of(st.none(), st.lists(st.integers(0, 5000), max_size=4)), st.data())
def test_events_that_go_straight_on_are_those_that_are_waited_for(
    payloads: list[bytes], at: list[int] | None, data: st.DataObject
) -> None:
    pieces = [b"data: %b\n\n" % each for each in payloads]
    if at is not None:
        pieces = _cut(b"".join(pieces), at)
    takes = data.draw(st.lists(st.booleans(), min_size=1))
    (straight, *told), (waited, *wanted) = _heard(pieces, Mould(), cycle(takes)), _heard(pieces, _Unlearned())
    assert told == wanted
    assert b"".join(each.raw for each in straight) == b"".join(each.raw for each in waited)
    assert [each.chunk for each in apart(straight)] == [each.chunk for each in apart(waited)]


def test_the_usual_event_goes_straight_on() -> None:
    pieces = [b"data: %b\n\n" % (_SHAPES[0] % orjson.dumps(text)[1:-1]) for text in ("Hello", " wor", "ld", "!")]
    events, *_ = _heard(pieces, Mould(), repeat(True))
    assert [each.texts for each in events] == [["Hello"], [" wor"], ["ld"], ["!"]]
    asked = iter([False] * 3)
    _heard(pieces, Mould(), asked)
    assert list(asked) == []  # the first is not offered: it teaches how the others look


@pytest.mark.parametrize("shape", _SHAPES[:3])
def test_the_usual_events_that_come_together_are_one(shape: bytes) -> None:
    texts = ["Hello", " wor", "ld\n", '"é"', "!"]
    payloads = [shape % orjson.dumps(text)[1:-1] for text in texts]
    events, error, malformed, _ = _heard([b"".join(b"data: %b\n\n" % each for each in payloads)], Mould())
    assert ([each.texts for each in events], error, malformed) == ([texts[:1], texts[1:]], "", 0)
    chunks: list[dict[str, Any]] = [each.chunk for each in apart(events)]
    assert chunks == [orjson.loads(each) for each in payloads]


def test_a_stream_that_puts_something_new_into_each_event_is_parsed() -> None:
    payloads = [_SHAPES[0].replace(b'"a"', b'"%d"' % n) % b"x" for n in range(20)]
    mould = Mould()
    events, *_ = _heard([b"".join(b"data: %b\n\n" % each for each in payloads)], mould)
    assert [each.chunk["id"] for each in events] == [str(n) for n in range(20)]
