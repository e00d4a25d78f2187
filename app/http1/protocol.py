"""A caller's connection: requests are parsed, answered one after the other, and the connection ends when it should.

Written for what it costs a call, in place of uvicorn's own: see docs/decisions/0051-own-server-protocol.md.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from app.errors import CallerError
from app.http1.exchange import EXTENSION, Exchange
from app.http1.head import joined, refusal

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

MOST_HEAD_BYTES = 64 * 1024
_MOST_BODY_BYTES = 64 * 1024
"""Reading stops while more of a body than this waits for the app."""
_MOST_WAITING = 8
"""Reading stops while so many requests wait for the answer to the one before, or a large body among them; until then a
caller is seen to leave."""
_MOST_PIPELINED = 100
_AT_ONCE = struct.pack("ii", 1, 0)
"""C's ``struct linger``: what was not sent yet is dropped, and the other side told so."""
_LINGER_S = 1.0
"""How long what still comes is dropped after a refusal: a connection closed at once would take the refusal with it."""
_FRAMING = (b"content-length", b"transfer-encoding")

log = logging.getLogger("sluice")


class _HeadTooLargeError(Exception):
    pass


class _PipelineTooLongError(Exception):
    pass


class _VersionError(Exception):
    pass


class Http1Protocol(asyncio.Protocol):
    """What uvicorn runs for a connection: ``uvicorn.Config(http=Http1Protocol)``.

    Attributes:
        loop: that it lives in.
        server_state: what the server's connections share.
        transport: that it writes to.
        write_paused: whether the caller reads more slowly than it is written to.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.server_state = server_state
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.write_paused = False
        self._app = config.loaded_app
        self._app_state = app_state
        self._root_path = config.root_path
        self._keep_s = config.timeout_keep_alive
        self._parser: httptools.HttpRequestParser | None = _parser(self)
        self._scope: dict[str, Any] = {"asgi": {"version": config.asgi_version, "spec_version": "2.3"}}
        self._url = b""
        self._target = b"", "", b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._bodiless_bytes = 0
        self._defaults: tuple[Any, bytes] = (None, b"")
        self._incoming: Exchange | None = None
        self._current: Exchange | None = None
        self._waiting: deque[tuple[Exchange, dict[str, Any]]] = deque()
        self._refusal = b""
        self._read_paused = False
        self._idle_since = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[tuple[Exchange, dict[str, Any]]] | None = None

    # -- the event loop's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self.transport = transport  # type: ignore[assignment]
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self._scope |= {
            "type": "http",
            "http_version": "1.1",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": self._root_path,
        }
        self._idle_since = self.loop.time()
        self._idle = self.loop.call_later(self._keep_s, self._close_idle)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._parser is None:
            return
        self._bodiless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(too_large=isinstance(error.__context__, _HeadTooLargeError))
        else:
            if self._bodiless_bytes > MOST_HEAD_BYTES:
                self._refuse(too_large=True)

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever works for the caller, and forget the connection."""
        self._parser = None
        self.server_state.connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
        if self._ready is not None:
            self._ready.cancel()
        self._waiting.clear()
        self._incoming = None
        current, self._current = self._current, None
        if current is not None:
            current.lose()

    def pause_writing(self) -> None:
        """Have ``send`` wait: the caller reads slowly."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Have it go on."""
        self.write_paused = False
        if self._current is not None:
            self._current.wake()

    def resume_reading(self) -> None:
        """Read on where reading was paused."""
        if self._read_paused:
            self._read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def read_on(self) -> None:
        """Read on after a body was taken, where nothing else is too much; or nobody would see the caller leave."""
        waits = self._incoming
        if len(self._waiting) < _MOST_WAITING and (waits is None or len(waits.body) <= _MOST_BODY_BYTES):
            self.resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def _close_idle(self) -> None:
        """Close what has been idle for long; else look again when it would have been."""
        since = self.loop.time() if self._current is not None else self._idle_since
        due = since + self._keep_s
        if due <= self.loop.time():
            self.transport.close()
        else:
            self._idle = self.loop.call_at(due, self._close_idle)

    # -- the parser's side ---------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Keep a piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the request to the app, as soon as it is its turn."""
        parser: httptools.HttpRequestParser = self._parser  # type: ignore[assignment]  # it is what calls
        headers, url = self._headers, self._url
        self._headers, self._url = [], b""
        if self._bodiless_bytes > MOST_HEAD_BYTES and _size(url, headers) > MOST_HEAD_BYTES:
            raise _HeadTooLargeError
        if url != self._target[0]:
            self._target = self._read_target(url)
        exchange = Exchange(self, headers, parser.should_keep_alive())
        scope = {
            **self._scope,
            "method": parser.get_method().decode("ascii"),
            "path": self._target[1],
            "raw_path": self._target[2],
            "query_string": self._target[3],
            "headers": headers,
            "state": self._app_state.copy(),
            "extensions": {EXTENSION: exchange},
        }
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise _VersionError
            scope["http_version"] = version
            exchange.old, exchange.keeps = True, False
        if scope["method"] == "HEAD":
            exchange.silent = True
        self._incoming = exchange
        if self._current is None:
            self._start(exchange, scope)
        else:
            self._line_up(exchange, scope)

    def _read_target(self, url: bytes) -> tuple[bytes, str, bytes, bytes]:
        """Return what a request's target says: itself, the path, the path as it came, and the query."""
        parsed = httptools.parse_url(url)
        path = parsed.path.decode("ascii")
        root = self._root_path
        return url, root + unquote(path), root.encode("ascii") + parsed.path, parsed.query or b""

    def forget_head(self) -> None:
        """Drop what was read of a head."""
        self._headers, self._url = [], b""

    def _line_up(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        """Have a request wait for its turn."""
        if len(self._waiting) >= _MOST_PIPELINED:
            self._incoming = None
            raise _PipelineTooLongError
        self._waiting.append((exchange, scope))
        if len(self._waiting) >= _MOST_WAITING:
            self._pause_reading()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of a body, and stop reading where too much waits; drop it where the answer is already out."""
        self._bodiless_bytes = 0
        exchange = self._incoming
        if exchange is None or exchange.complete:
            return
        if not exchange.body:
            exchange.body = data
        elif isinstance(exchange.body, bytearray):
            exchange.body += data
        else:
            exchange.body = bytearray(exchange.body) + data
        if exchange.waiters is not None:
            exchange.wake()
        if len(exchange.body) > _MOST_BODY_BYTES:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """Note that a request is whole. What came as headers after its body belongs to nobody."""
        self._bodiless_bytes = 0
        exchange, self._incoming = self._incoming, None
        if self._headers:
            self._headers = []
        if exchange is not None:
            exchange.more = False
            if exchange.waiters is not None:
                exchange.wake()

    def _start(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        self._current = exchange
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_result((exchange, scope))
            return
        task = self.loop.create_task(self._serve(exchange, scope))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    async def _serve(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        """Have the app answer one request after another: to wake a task costs less than to make one for each."""
        while True:
            await exchange.run(self._app, scope)
            if self._ready is not None or self._parser is None:
                return  # the next is in other hands, or does not come
            del exchange, scope
            self._ready = self.loop.create_future()
            exchange, scope = await self._ready

    # -- the exchanges' side -------------------------------------------------------------------------------------------

    def defaults(self) -> bytes:
        """Return the headers that every response has, as lines; the server makes them anew each second."""
        told = self.server_state.default_headers
        if told is not self._defaults[0]:
            self._defaults = told, joined(told)
        return self._defaults[1]

    def answered(self, exchange: Exchange) -> None:
        """Go on after a response: with the next request, or until it comes, or not at all."""
        self.server_state.total_requests += 1
        self._current = None
        if not exchange.keeps:
            self._part() if exchange.more else self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self._waiting:
            self._start(*self._waiting.popleft())
        elif self._refusal:
            self._say_no()
        if self._read_paused:
            self.resume_reading()

    def reset(self) -> None:
        """Reset the connection: a body that ends with it is not to look whole."""
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection as soon as every request on it is answered."""
        last = self._waiting[-1][0] if self._waiting else self._current
        if last is None:
            self.transport.close()
        else:
            last.keeps = False

    # -- what is no plain request --------------------------------------------------------------------------------------

    def _stay(self, rest: bytes) -> None:
        """Go on with HTTP/1.1 after a request for another protocol, whose body the parser takes for that protocol."""
        exchange = self._waiting[-1][0] if self._waiting else self._current
        framing = [] if exchange is None else [each for each in exchange.headers if each[0] in _FRAMING]
        if exchange is not None and framing:
            exchange.more = True
            self._incoming = exchange
            self._parser = _parser(_AfterHead(self))
            rest = b"POST / HTTP/1.1\r\n" + joined(framing) + b"\r\n" + rest
        if rest:
            self.data_received(rest)

    def _refuse(self, *, too_large: bool) -> None:
        """Read no further, and say why after the answers to what came before."""
        log.warning("a request was refused that is not HTTP/1.1, or too large a head")
        self._parser = None
        error = _too_large() if too_large else CallerError("This is not a valid HTTP/1.1 request.", code="invalid_http")
        self._refusal = refusal(error, self.server_state.default_headers)
        broken, self._incoming = self._incoming, None
        if self._waiting and self._waiting[-1][0] is broken:
            self._waiting.pop()
        elif broken is not None and broken is self._current:
            self._current = None
            broken.lose()
            if broken.begun:
                broken.cut()
                return
        if self._current is None:
            self._say_no()

    def _say_no(self) -> None:
        self.transport.write(self._refusal)
        self._part()

    def _part(self) -> None:
        """Close once the caller has, or soon: were it closed at once, what is not read yet would undo what was sent."""
        self._parser = None
        if not self.transport.is_closing():
            self.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.close)


class _AfterHead:
    """Calls a connection back for all but a head that it has had."""

    def __init__(self, connection: Http1Protocol) -> None:
        self._connection = connection
        self._first = True
        self.on_url, self.on_header, self.on_body = connection.on_url, connection.on_header, connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_headers_complete(self) -> None:
        if self._first:
            self._first = False
            self._connection.forget_head()
        else:
            self._connection.on_headers_complete()


def _parser(told: object) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(told)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is dropped here
    return parser


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)


def _too_large() -> CallerError:
    told = f"The request's head is larger than {MOST_HEAD_BYTES // 1024} KiB."
    return CallerError(told, status=431, code="request_headers_too_large", fault="caller_too_large")
