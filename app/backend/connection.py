"""One HTTP/1.1 connection to a backend, and the response that is under way on it.

httptools (llhttp) parses; this keeps what has come until somebody wants it, stops reading while nobody does, and knows
when a body is whole. One exchange at a time; a connection whose exchange ended well may carry the next.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import httptools

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_WAITING_BYTES = 128 * 1024
"""Reading stops while more than this waits to be taken: what a slow caller can pile up per stream."""
_MOST_HEAD_BYTES = 64 * 1024
_MOST_INFLATED_BYTES = 16 * 1024 * 1024
"""Of one read, which is 256 kB at most."""
_DRAIN_S = 0.5
"""How long the end of a body may come after its last event; a backend that lingers is cut off."""
_BODILESS = {204, 304}
_ZLIB = {b"gzip", b"x-gzip", b"deflate"}
_FIRST_FINAL = 200
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Connection(asyncio.Protocol):
    """A connection of the pool.

    Args:
        loop: that it lives in.
        give_back: called when its exchange has ended and it may carry another.
        forget: called when it is closed.

    Attributes:
        idle_since: when it was last given back, on the event loop's clock.
        served: how many exchanges it has begun.
        headers: of the response, as they came, names in small letters; another list for each response.
        status: of the response; 0 until its head is there.
        tap: is offered what comes of the body while somebody waits for it, and says whether it took it; the one who
            waits then sleeps on. It must not raise.
    """

    __slots__ = (
        "_closed", "_complete", "_fault", "_forget", "_give_back", "_head_bytes", "_inflate", "_inflated", "_keeps",
        "_loop", "_parser", "_parts", "_paused", "_size", "_transport", "_until_eof", "_waiter",
        "headers", "idle_since", "served", "status", "tap",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, give_back: Callable[[Connection], None], forget: Callable[..., None]
    ) -> None:
        self._loop = loop
        self._give_back = give_back
        self._forget = forget
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.tap: Callable[[bytes], bool] | None = None
        self._parts: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self._inflate: zlib._Decompress | None = None
        self._fault: BackendError | None = None
        self._closed = self._complete = self._keeps = self._paused = self._until_eof = False
        self._size = self._head_bytes = self._inflated = self.status = self.served = 0
        self.idle_since = 0.0

    # -- the event loop's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what came, and wake whoever waits for it."""
        if self._complete or not self.served:
            self.close()  # nobody asked for anything: what an idle connection says cannot be trusted
            return
        self._inflated = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error.__context__ or error) or type(error).__name__)
        if self._parts or self.tap is None or self._complete or self._fault is not None:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End the body where that is how it ends; else it was cut."""
        self._closed = True
        self._forget(self)
        if self._until_eof and error is None:
            self._complete = True
        self._fail(str(error) if error is not None else "it ended too early")
        self._wake()

    def _fail(self, why: str) -> None:
        """Note why the response will not be whole, and close."""
        if self._fault is None and not self._complete:
            self._fault = self._broken(why[:200])
        self.close()

    def _broken(self, why: str) -> BackendError:
        if self.status:
            return BackendError(Reason.CUT, f"The backend's answer was cut: {why}", code="incomplete_answer")
        if self._closed:
            return BackendError(Reason.RESET, f"The backend closed the connection: {why}")
        return BackendError(Reason.MALFORMED, f"The backend's response is not HTTP: {why}")

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # -- the parser's side ---------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MOST_HEAD_BYTES or self._complete:
            raise ValueError("more headers came than any response has")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note status and how the body ends; a 1xx response is only a promise of one."""
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL:
            self.headers.clear()
            return
        found = dict(self.headers)
        sized = b"content-length" in found or b"transfer-encoding" in found
        encoding = found.get(b"content-encoding", b"identity").lower()
        if encoding in _ZLIB:
            self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif encoding != b"identity":
            raise ValueError(f"it is encoded as {encoding[:20]!r}, which was not asked for")
        self._keeps = self._parser.should_keep_alive()
        self._until_eof = not sized and status not in _BODILESS
        self.status = status

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body; stop reading where too much waits."""
        if self._inflate is not None:
            data = self._inflate.decompress(data, max(1, _MOST_INFLATED_BYTES - self._inflated))
            self._inflated += len(data)
            if self._inflate.unconsumed_tail:
                raise ValueError("it is many times as large as what was sent")
            if not data:
                return  # none would mean the end
        if self.tap is not None and not self._parts and self._awaited and self.tap(data):
            return
        self._parts.append(data)
        self._size += len(data)
        transport = self._transport
        if self._size > _MOST_WAITING_BYTES and not self._paused and transport is not None and self.usable:
            self._paused = True
            transport.pause_reading()

    @property
    def _awaited(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def on_message_complete(self) -> None:
        """Note that the body is whole."""
        if self.status:
            self._complete = True

    # -- the exchange's side -------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether it may carry a request."""
        return not self._closed and self._transport is not None and not self._transport.is_closing()

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request and wait until the response's head is there.

        Raises:
            BackendError: MALFORMED or RESET.
        """
        transport = self._transport
        if transport is None:
            raise BackendError(Reason.RESET, "The backend closed the connection.")
        self.served += 1
        self._complete = self._until_eof = False
        self._inflate = self.tap = None
        self.status = self._head_bytes = self._size = 0
        self.headers = []
        if len(body) < _MOST_HEAD_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        while not self.status:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        await waiter

    async def some(self) -> bytes:
        """Return what has come of the body, at least a byte; ``b""`` at its end.

        Raises:
            BackendError: CUT.
        """
        while True:
            if self._parts:
                return self._taken()
            if self._complete:
                self._release()
                return b""
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def rest(self, limit_bytes: int) -> bytes:
        """Return the rest of the body.

        Raises:
            BackendError: CUT, or TOO_LARGE.
        """
        parts, size = [], 0
        while True:
            if self._parts:
                parts.append(self._taken())
                size += len(parts[-1])
                if size > limit_bytes:
                    raise BackendError(Reason.TOO_LARGE, f"The backend's answer is larger than {limit_bytes} bytes.")
            if self._complete:
                self._release()
                return parts[0] if len(parts) == 1 else b"".join(parts)
            if self._fault is not None:
                raise self._fault
            await self._wait()

    def _taken(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        transport = self._transport
        if self._paused and transport is not None and self.usable:
            transport.resume_reading()
        self._paused = False
        return data

    def _release(self) -> None:
        """Go back to the pool, where the other side keeps the connection and has read all that was sent."""
        self.tap = None
        transport = self._transport
        if transport is None or not self.usable:
            return
        if self._keeps and not self._until_eof and not transport.get_write_buffer_size():
            self._give_back(self)
        else:
            self.close()

    def drain(self) -> None:
        """Drop what is left of the body as it comes, for a short while, and keep the connection then. Needs no task."""
        self.tap = None
        self._drop(self._loop.call_later(_DRAIN_S, self.close))

    def _drop(self, late: asyncio.TimerHandle) -> None:
        self._taken()
        if self._complete or self._fault is not None:
            late.cancel()
            if self._complete:
                self._release()
            return
        self._waiter = waiter = self._loop.create_future()
        waiter.add_done_callback(lambda _: self._drop(late))

    def close(self) -> None:
        """Close at once; harmless when repeated. In mid-body TLS is not said goodbye to: that takes time."""
        self.tap = None
        transport = self._transport
        if transport is None or self._closed:
            return
        if not self._complete and transport.get_extra_info("sslcontext") is not None:
            transport.abort()
        else:
            transport.close()
