from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backend.sse import SSEDecoder
from app.errors import BackendError, Reason

_ENDS = [b"\n", b"\r\n", b"\r"]
_LINES = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data:  three",
        b"data",
        b"data:",
        b": comment",
        b"event: x",
        b"id: 1",
        b"",
        b"",
        b"datax: n",
    ]
)


def _reference(stream: bytes) -> list[bytes]:
    """The standard's algorithm, line by line, over the whole stream."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not line:
            events += [b"\n".join(data)] if data else []
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" ") if colon else b"")
    return events + ([b"\n".join(data)] if data else [])


def _decode(pieces: list[bytes]) -> list[bytes]:
    decoder = SSEDecoder()
    return [data for piece in pieces for data in decoder.feed(piece)] + decoder.flush()


@given(st.lists(st.tuples(_LINES, st.sampled_from(_ENDS)), max_size=12), st.data())
def test_cut_anywhere_the_events_are_those_of_the_standard(
    lines: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert b"".join(pieces) == stream
    assert _decode(pieces) == _reference(stream)


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_in_small_pieces_are_the_same_events_as_at_once(stream: bytes, size: int) -> None:
    assert _decode([stream[at : at + size] for at in range(0, len(stream), size)]) == _decode([stream])


def test_a_line_feed_after_a_cut_crlf_is_a_blank_line() -> None:
    assert _decode([b"data: a\r", b"\n", b"\n", b"data: b\r\n", b"", b"\r\n"]) == [b"a", b"b"]


@pytest.mark.parametrize("end", _ENDS)
def test_line_ends_byte_by_byte(end: bytes) -> None:
    stream = (b"data: a" + end * 2 + b": c" + end * 2 + b"data: b" + end + b"data: c" + end * 2) * 2
    assert _decode([bytes([byte]) for byte in stream]) == [b"a", b"b\nc"] * 2


def test_events_are_given_out_as_soon_as_they_are_whole() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\ndata: b\n\nda") == [b"a", b"b"]
    assert decoder.feed(b"ta: c\r\n\r") == [b"c"]
    assert decoder.feed(b"\n") == []


@pytest.mark.parametrize("piece", [b"x" * 100, b"x\n" * 50])
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    decoder = SSEDecoder(max_event_bytes=1000)
    for _ in range(10):
        assert decoder.feed(piece) == []
    with pytest.raises(BackendError) as caught:
        decoder.feed(piece)
    assert caught.value.reason is Reason.TOO_LARGE


def test_many_events_together_may_be_larger_than_one_may_be() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    assert len(decoder.feed(b"data: 0123456789\n\n" * 100)) == 100
