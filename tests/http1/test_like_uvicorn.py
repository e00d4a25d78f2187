"""The same bytes, cut anywhere, get the same answers as from uvicorn's protocol; nonsense behind them changes none."""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import pairwise
from typing import Any

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from app.http1.protocol import Http1Protocol
from tests.http1.site import Receive, Send, answer_with, echo


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.sent: list[bytes] = []
        self.paused = self.closed = self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        if data:
            self.sent.append(bytes(data))

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer with what was asked, or before it was read, or in pieces, or with nothing."""
    match scope["path"]:
        case "/early":
            await answer_with(send, b"early")
        case "/pieces":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
            for piece in (b"one", b"", b"two"):
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        case "/none":
            await answer_with(send, b"", 204)
        case _:
            await echo(scope, receive, send)


@cache
def _config(http: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    return config


async def _sent(http: Any, pieces: list[bytes]) -> bytes:
    """Return all that a connection sends where these bytes come."""
    state = ServerState()
    made: Any = _config(http).http_protocol_class
    protocol = made(config=_config(http), server_state=state, app_state={})
    wire = Wire(protocol)
    protocol.connection_made(wire)
    for piece in pieces:
        if not wire.closed and not wire.paused:
            protocol.data_received(piece)
            await asyncio.sleep(0)
        else:
            await _rest(wire)
            if not wire.closed:
                protocol.data_received(piece)
    await _rest(wire)
    wire.close()
    await asyncio.sleep(0)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    return b"".join(wire.sent)


async def _rest(wire: Wire) -> None:
    """Return once nothing more is sent."""
    quiet, before = 0, 0
    while quiet < 12:
        await asyncio.sleep(0)
        quiet, before = (quiet + 1 if len(wire.sent) == before else 0), len(wire.sent)


_BYTES = st.binary(max_size=40)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """Draw a request that both take alike."""
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    paths = ["/", "/a%20b?c=d", "//a", "/a?", "http://b/c?d#e", "/early", "/none", *(["/pieces"] * (version == "1.1"))]
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS"]))
    lines = [f"{method} {draw(st.sampled_from(paths))} HTTP/{version}", "Host: x"]
    lines += draw(
        st.lists(st.sampled_from(["X: y", "x:  z ", "Cookie: a; b", "Connection: keep-alive", "X-Empty:"]), max_size=3)
    )
    lines += ["Connection: close"] * draw(st.sampled_from([0, 0, 0, 1]))
    match draw(st.sampled_from(["none", "length", "chunks"] if version == "1.1" else ["none", "length"])):
        case "length":
            body = draw(_BYTES)
            lines.append(f"Content-Length: {len(body)}")
        case "chunks":
            chunks = [b"%x\r\n%b\r\n" % (len(each), each) for each in draw(st.lists(_BYTES.filter(bool), max_size=3))]
            body = b"".join(chunks) + b"0\r\n\r\n"
            lines.append("Transfer-Encoding: chunked")
        case _:
            body = b""
    return "\r\n".join([*lines, "", ""]).encode() + body


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[begin:end] for begin, end in pairwise(at)]


_CUTS = st.lists(st.integers(0, 1000), max_size=8)


@settings(max_examples=150)
@given(st.lists(_requests(), min_size=1, max_size=5), _CUTS)
def test_it_answers_as_uvicorns_protocol_does(requests: list[bytes], cuts: list[int]) -> None:
    pieces = _pieces(b"".join(requests), cuts)

    async def both() -> list[bytes]:
        return [await _sent(http, pieces) for http in ("httptools", Http1Protocol)]

    theirs, ours = asyncio.run(both())
    assert ours == theirs


@settings(max_examples=100)
@given(st.lists(_requests(), max_size=3), st.binary(min_size=1, max_size=60), _CUTS)
def test_nonsense_behind_requests_changes_no_answer(requests: list[bytes], nonsense: bytes, cuts: list[int]) -> None:
    data = b"".join(requests)

    async def both() -> list[bytes]:
        return [await _sent(Http1Protocol, each) for each in ([data], _pieces(data + b"\x00" + nonsense, cuts))]

    without, with_it = asyncio.run(both())
    assert with_it.startswith(without)
    rest = with_it[len(without) :]
    closed = b"connection: close" in without.lower()
    assert rest == b"" if closed else rest.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")


def test_a_plain_answer_is_one_write_and_a_body_that_waits_stops_reading() -> None:
    async def look() -> None:
        state = ServerState()
        protocol = Http1Protocol(_config(Http1Protocol), state, {})
        wire = Wire(protocol)
        protocol.connection_made(wire)
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        await _rest(wire)
        assert len(wire.sent) == 1
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 70000\r\n\r\n" + bytes(69_000))
        paused = [wire.paused]
        await _rest(wire)
        assert [*paused, wire.paused] == [True, False]
        protocol.data_received(bytes(1000))
        await _rest(wire)
        assert len(wire.sent) == 2
        wire.close()
        await asyncio.sleep(0)

    asyncio.run(look())
