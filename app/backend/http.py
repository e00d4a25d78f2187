"""The HTTP client of the relay, behind three small methods so that another client is one file's change.

Written for this one work, since it is half of what a call costs: see docs/decisions/0031-own-http-client.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket as sockets
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from aiohappyeyeballs import start_connection
from multidict import CIMultiDict
from yarl import URL

from app.backend.connection import Connection
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from app.trace import Trace, TraceContext

    Infos = list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]

_KEEP_S = 15.0
"""An idle connection is closed after this: many servers close theirs after 20 s or more, some after 15."""
_DNS_S = 60.0
_EYEBALLS_S = 0.25
"""RFC 8305's delay between attempts at the addresses of one name."""
_MOST_PLACES = 1024


class Reply(Protocol):
    """A response that has begun, however it travels."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers."""

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` at the body's end. Raises BackendError."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises BackendError."""

    def tap(self, take: Callable[[bytes], bool]) -> None:
        """Offer what arrives while :meth:`some` waits to ``take``, which says whether it took it."""

    def finish(self) -> None:
        """The body's end has come, or will at once: keep the connection."""

    def close(self) -> None:
        """Close the connection; harmless when repeated."""


class Client(Protocol):
    """What the wires need of HTTP."""

    async def post(self, url: URL, headers: CIMultiDict[str], body: bytes, connect_s: float, trace: Trace) -> Reply:
        """Send a request and return once the response's headers are there. Raises BackendError."""

    async def get(self, url: URL, headers: CIMultiDict[str], timeout_s: float) -> Reply:
        """Fetch something small. Raises BackendError."""


class Exchange:
    """One response that has begun: its status and headers are known, its body can be pulled or closed."""

    __slots__ = ("_connection", "_headers", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._headers = connection.headers
        self.status = connection.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, read when somebody asks: for most answers nobody does."""
        return CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers)

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` at the body's end.

        Raises:
            BackendError: the connection broke.
        """
        if self._connection is None:
            return b""
        data = await self._connection.some()
        if not data:
            self._connection = None
        return data

    def tap(self, take: Callable[[bytes], bool]) -> None:
        """Offer what arrives while :meth:`some` waits to ``take``, which says whether it took it."""
        if self._connection is not None:
            self._connection.tap = take

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BackendError: the connection broke, or the body is larger than the limit.
        """
        if self._connection is None:
            return b""
        data = await self._connection.rest(limit_bytes)
        self._connection = None
        return data

    def finish(self) -> None:
        """Give the connection back to the pool once the body's end has come; a backend that lingers is cut off."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drain()

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is already back in the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Place:
    """Where a URL's requests go, what begins them, and the connections that wait to carry one."""

    __slots__ = ("authorization", "host", "idle", "line", "port", "tls")

    def __init__(self, url: URL) -> None:
        self.host = url.raw_host or ""
        self.port = url.port or 80
        self.tls = url.scheme == "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if url.is_default_port() else f":{self.port}"
        self.line = f" {url.raw_path_qs} HTTP/1.1\r\nHost: {host}{port}\r\n"
        user = f"{url.user or ''}:{url.password or ''}"
        self.authorization = f"Basic {base64.b64encode(user.encode()).decode()}" if user != ":" else ""
        self.idle: list[Connection] = []


class HttpClient:
    """Posts bodies. One for each event loop; must be made inside of it and closed."""

    def __init__(self, socket: Path | None = None) -> None:
        """Make the client; with ``socket``, everything goes through that Unix socket, whatever the URLs say."""
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._places: dict[URL, _Place] = {}
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._names: dict[tuple[str, int], tuple[float, Infos]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def post(self, url: URL, headers: CIMultiDict[str], body: bytes, connect_s: float, trace: Trace) -> Exchange:
        """Send a request and return once the response's headers are there.

        Raises:
            BackendError: CONNECT, MALFORMED or RESET; with ``retry_after_s`` 0 where a kept connection was used.
        """
        place = self._place(url)
        if trace.context is not None:
            headers = _traced(headers, trace.context)
        head = _head("POST", place, headers, len(body))
        connection = self._kept(place) or await self._connect(place, connect_s)
        trace.stage_at("connect", time.perf_counter_ns())
        return await self._ask(connection, head, body)

    async def get(self, url: URL, headers: CIMultiDict[str], timeout_s: float) -> Exchange:
        """Fetch something small off the hot path, such as a list of models.

        Raises:
            BackendError: CONNECT or RESET.
        """
        place = self._place(url)
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._kept(place) or await self._connect(place, timeout_s)
                return await self._ask(connection, _head("GET", place, headers, None), b"")
        except TimeoutError as error:
            raise BackendError(Reason.CONNECT, f"No answer within {timeout_s:g} s.") from error

    @staticmethod
    async def _ask(connection: Connection, head: bytes, body: bytes) -> Exchange:
        reused = connection.served > 0
        try:
            await connection.ask(head, body)
        except BackendError as error:
            # A kept connection may close just as it is used again: no reason to wait before the next try.
            if error.reason is Reason.RESET and reused:
                error.retry_after_s = 0.0
            connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        return Exchange(connection)

    # -- the pool ------------------------------------------------------------------------------------------------------

    def _place(self, url: URL) -> _Place:
        place = self._places.get(url)
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            place = self._places[url] = _Place(url)
            place.idle = self._idle.setdefault((place.host, place.port, place.tls), place.idle)
        return place

    def _kept(self, place: _Place) -> Connection | None:
        """Take the connection that was used last: the others may then grow old and be closed."""
        while place.idle:
            connection = place.idle.pop()
            if connection.usable and self._loop.time() - connection.idle_since < _KEEP_S:
                return connection
            connection.close()
        return None

    def _give_back(self, place: _Place, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        place.idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_KEEP_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has been idle for long, and look again while anything is."""
        self._sweep = None
        oldest = self._loop.time() - _KEEP_S
        for idle in self._idle.values():
            for each in idle:
                if each.idle_since <= oldest:
                    each.close()
            idle[:] = [each for each in idle if each.usable]
        if any(self._idle.values()):
            self._sweep = self._loop.call_later(_KEEP_S, self._close_idle)

    async def _connect(self, place: _Place, connect_s: float) -> Connection:
        """Open a connection.

        Raises:
            BackendError: CONNECT.
        """
        make = partial(Connection, self._loop, partial(self._give_back, place), self._open.discard)
        try:
            async with asyncio.timeout(connect_s):
                connection = await self._opened(place, make)
        except TimeoutError as error:
            message = f"No connection to the backend within {connect_s:g} s."
            raise BackendError(Reason.CONNECT, message) from error
        except OSError as error:
            self._names.pop((place.host, place.port), None)
            message = f"No connection to the backend: {str(error)[:200] or type(error).__name__}"
            raise BackendError(Reason.CONNECT, message) from error
        self._open.add(connection)
        return connection

    async def _opened(self, place: _Place, make: partial[Connection]) -> Connection:
        if self._socket is not None:
            _, connection = await self._loop.create_unix_connection(make, str(self._socket))
            return connection
        infos = await self._addresses(place)
        sock = await start_connection(infos, happy_eyeballs_delay=_EYEBALLS_S, interleave=1, loop=self._loop)
        try:
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            name = place.host.rstrip(".") if place.tls else None
            tls = self._context() if place.tls else None
            _, connection = await self._loop.create_connection(make, sock=sock, ssl=tls, server_hostname=name)
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            raise
        return connection

    async def _addresses(self, place: _Place) -> Infos:
        """Return the addresses of a host, remembered for a while."""
        key = place.host, place.port
        known = self._names.get(key)
        if known is not None and self._loop.time() - known[0] < _DNS_S:
            return known[1]
        found = await self._loop.getaddrinfo(*key, type=sockets.SOCK_STREAM)
        infos: Infos = [(*each[:4], each[4]) for each in found]
        self._names[key] = self._loop.time(), infos
        return infos

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)  # the transports close in the loop's next turn


def _head(method: str, place: _Place, headers: CIMultiDict[str], length: int | None) -> bytes:
    """Return a request's head.

    Raises:
        ValueError: a header holds a line end.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header of a request must not hold a line end")
    if place.authorization and "authorization" not in headers:
        lines += f"Authorization: {place.authorization}\r\n"
    if "accept-encoding" not in headers:
        lines += "Accept-Encoding: identity\r\n"
    size = f"Content-Length: {length}\r\n" if length is not None else ""
    return f"{method}{place.line}{lines}{size}\r\n".encode()


def _traced(headers: CIMultiDict[str], context: TraceContext) -> CIMultiDict[str]:
    """Return the headers with the call's place in its trace."""
    traced = headers.copy()
    traced["traceparent"] = context.traceparent
    if context.state:
        traced["tracestate"] = context.state
    return traced


def endpoint_url(base_url: str, path: str) -> URL:
    """Join a backend's base URL and an endpoint's path."""
    return URL(base_url + path, encoded=True)
