"""HTTP/1.1 over a raw asyncio protocol: no framework, so that every way of breaking off an answer can be played.

The connection reads all the time, also while it answers: a client that leaves is noticed at once, in the middle of a
stream, a stall or a silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import orjson

HEAD_LIMIT = 256 * 1024
BODY_LIMIT = 256 * 1024 * 1024
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
Headers = Iterable[tuple[str, str]]


class ClientGone(Exception):  # noqa: N818 - an event, not a mistake
    """The client closed the connection while something was still to be read from it or said to it."""


class BadRequest(Exception):  # noqa: N818 - named after the status
    """What the client sent is not HTTP, or is too large; ``status`` says which."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request, wholly read."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"

    def json(self) -> Any:
        """Return the parsed body; None where it is empty or not JSON."""
        try:
            return orjson.loads(self.raw) if self.raw else None
        except orjson.JSONDecodeError:
            return None


class Connection(asyncio.Protocol):
    """One client connection; ``accept`` is told when it is made.

    Attributes:
        number: 1 for the first connection that the server accepted.
        lost: set once the connection is closed on both sides.
        gone_at: ``time.monotonic()`` of the moment at which the client's close was noticed, or None.
    """

    def __init__(self, accept: Callable[[Connection], None]) -> None:
        self._accept = accept
        self.number = 0
        self.lost = asyncio.Event()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._data: asyncio.Event = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self.gone_at: float | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Nothing is buffered in this process: what was written and what the kernel took are the same.
        self._transport.set_write_buffer_limits(high=0)
        self._accept(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._data.set()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self._leave()
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _leave(self) -> None:
        if self.gone_at is None:
            self.gone_at = time.monotonic()
        self._gone.set()
        self._data.set()
        self._writable.set()

    async def _more(self) -> None:
        if self.gone_at is not None:
            raise ClientGone
        self._data.clear()
        await self._data.wait()

    async def _until(self, end: bytes, limit: int) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > limit:
                raise BadRequest("the head is too large", 431)
            await self._more()
        return self._take(at + len(end))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def read_request(self) -> Request:
        """Read one request with its body.

        Raises:
            ClientGone: the client left before the request was whole.
            BadRequest: what came is not HTTP or is too large.
        """
        method, target, headers = parse_head(await self._until(b"\r\n\r\n", HEAD_LIMIT))
        if headers.get("expect", "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, target, headers, await self._body(headers))

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return await self._chunked()
        size = _number(headers.get("content-length", "0"), 10)
        return await self._exactly(size)

    async def _chunked(self) -> bytes:
        body = bytearray()
        while size := _number((await self._until(b"\r\n", HEAD_LIMIT)).split(b";")[0].decode("latin-1"), 16):
            body += await self._exactly(size)
            await self._exactly(2)
            if len(body) > BODY_LIMIT:
                raise BadRequest("the body is too large", 413)
        while await self._until(b"\r\n", HEAD_LIMIT) != b"\r\n":
            pass  # trailers
        return bytes(body)

    @property
    def blocked(self) -> bool:
        """Whether the client reads so slowly that the kernel takes no more."""
        return not self._writable.is_set()

    async def write(self, data: bytes) -> None:
        """Write and wait until the kernel took it.

        Raises:
            ClientGone: the client closed the connection.
        """
        self.put(data)
        await self.drain()

    def put(self, data: bytes) -> None:
        """Hand bytes to the kernel.

        Raises:
            ClientGone: the client closed the connection.
        """
        if self.gone_at is not None:
            raise ClientGone
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the kernel took what was written; the other tasks get their turn in any case.

        Raises:
            ClientGone: the client closed the connection.
        """
        await asyncio.sleep(0)
        await self._writable.wait()
        if self.gone_at is not None:
            raise ClientGone

    async def pause(self, seconds: float | None) -> None:
        """Say nothing for some seconds (None: for ever).

        Raises:
            ClientGone: the client closed the connection meanwhile.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        if self.gone_at is not None:
            raise ClientGone

    def close(self) -> None:
        """Close with a FIN, after what was written."""
        self.transport.close()

    def reset(self) -> None:
        """Close with a RST: no lingering."""
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _number(text: str, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError:
        raise BadRequest(f"{text!r} is not a length") from None
    if not 0 <= size <= BODY_LIMIT:
        raise BadRequest("the body is too large", 413)
    return size


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Split a head into method, target and headers with lower-case names.

    Raises:
        BadRequest: it is not the head of a request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise BadRequest("not a request line")
    headers = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("not a header line")
        headers[name.strip().lower()] = value.strip()
    return parts[0], parts[1], headers


def head(status: int, headers: Headers) -> bytes:
    """Return the head of a response."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def whole(status: int, body: bytes, headers: Headers = (), kind: str = "application/json") -> bytes:
    """Return a whole response with its length."""
    return head(status, [("content-type", kind), ("content-length", str(len(body))), *headers]) + body


def chunk(data: bytes) -> bytes:
    """Frame one piece of a chunked body; nothing in, nothing out (an empty chunk would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


LAST_CHUNK = b"0\r\n\r\n"
