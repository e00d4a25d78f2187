"""One request and its response: ASGI's ``receive`` and ``send``, and a shorter way for whoever knows this server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from app.errors import SluiceError
from app.http1.head import CHUNKED, CLOSE, STATUS_LINES, joined, ordered, refusal

if TYPE_CHECKING:
    from app.http1.protocol import Http1Protocol

Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

EXTENSION = "sluice.caller"
"""Where among a scope's ``extensions`` the Caller is."""
_BODILESS = {204, 304}
_LINGER_S = 1.0
"""How long what was sent may still be read after a cut."""
_INTERNAL = "Sluice failed in an unexpected way."

log = logging.getLogger("sluice")


class Caller(Protocol):
    """Who waits for a response.

    Attributes:
        gone: whether the connection was lost before the response was complete.
        on_gone: called once, in the event loop, as that happens.
    """

    gone: bool
    on_gone: Callable[[], None] | None

    def write_now(self, data: bytes) -> bool:
        """Write a piece of a chunked body that has begun; False, and nothing is written, where ``send`` has to wait."""


def caller_of(scope: Message) -> Caller | None:
    """Return who waits for the response to a request; None under another server, or where nobody does."""
    caller: Caller | None = scope.get("extensions", {}).get(EXTENSION)
    return caller


class Exchange:
    """A request that has come, and what becomes of its response. It is the Caller of its scope.

    Attributes:
        headers: of the request.
        body: what has come of the request's body and was not taken.
        more: whether more of it is to come.
        keeps: whether the connection may carry another exchange afterwards.
        old: whether the caller speaks HTTP/1.0.
        silent: whether the response has no body whatever is sent: that to HEAD.
        begun: whether any of the response is out.
        complete: whether all of it is.
        waiters: those who wait until any of that changes.
    """

    __slots__ = (
        "_chunked", "_connection", "_continued", "_held", "_left", "_open", "_started", "_taken", "begun", "body",
        "complete", "gone", "headers", "keeps", "more", "old", "on_gone", "silent", "waiters",
    )  # fmt: skip

    def __init__(self, connection: Http1Protocol, headers: list[tuple[bytes, bytes]], keeps: bool) -> None:
        self._connection = connection
        self.headers = headers
        self._left: int | None = None
        self._held = b""
        self.body: bytes | bytearray = b""
        self._chunked = self._continued = self._open = self._started = self._taken = False
        self.begun = self.complete = self.gone = self.old = self.silent = False
        self.more = True
        self.keeps = keeps
        self.on_gone: Callable[[], None] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        """Have the app answer; whatever it does, the response is whole or cut so that the caller sees it."""
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server ends
            self._fail()
            raise
        except Exception:
            log.exception("bug in the app")
            self._fail()
        else:
            if not self.complete and not self.gone:
                log.error("the app ended without a whole response")
                self._fail()

    def _fail(self) -> None:
        """Say that the response will not come, or cut what has begun."""
        if self.complete or self.gone:
            return
        connection = self._connection
        if self.begun:
            self.cut()
            return
        told = refusal(SluiceError(_INTERNAL, code="internal_error"), connection.server_state.default_headers)
        connection.transport.write(told.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if self.silent else told)
        self.begun, self.keeps = True, False
        self._end()

    def cut(self) -> None:
        """End the connection in the middle of the response, in a way that shows."""
        connection = self._connection
        if self.old:
            connection.reset()
        elif connection.write_paused:  # it would close once all is read, which may be never
            connection.transport.abort()
        else:
            connection.transport.close()
            connection.loop.call_later(_LINGER_S, connection.transport.abort)

    # -- the request -----------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return what has come of the body, at least a byte or its end; afterwards wait until the caller has gone."""
        if self._taken or (self.more and not self.body):
            await self._arrival()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        self._taken = not self.more
        self._connection.read_on()
        return {"type": "http.request", "body": bytes(body), "more_body": self.more}

    async def _arrival(self) -> None:
        if self._expects and not self.begun and not self._connection.transport.is_closing():
            self._continued = True
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.complete) and (self._taken or (self.more and not self.body)):
            await self._change()

    @property
    def _expects(self) -> bool:
        """Whether the caller waits for leave to send the body."""
        if not self.more or self._continued or self.old or self.body:
            return False
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers)

    async def _change(self) -> None:
        waiter = self._connection.loop.create_future()
        self.waiters = [*(each for each in self.waiters or () if not each.done()), waiter]
        await waiter

    def wake(self) -> None:
        """Have those who wait look again."""
        waiters, self.waiters = self.waiters, None
        for each in waiters or ():
            if not each.done():
                each.set_result(None)

    def lose(self) -> None:
        """Take note that the caller has gone."""
        if self.complete or self.gone:
            return
        self.gone, self._open = True, False
        self.wake()
        told, self.on_gone = self.on_gone, None
        if told is not None:
            told()

    # -- the response ----------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send a part of the response. The head goes out with the first piece of the body.

        Raises:
            RuntimeError: the response would not be one, were this a part of it.
        """
        while self._connection.write_paused and not self.gone:
            await self._change()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self._started and not self.complete:
            self._write(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self._started:
            self._begin(message["status"], list(message.get("headers", ())))
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}'.")

    def write_now(self, data: bytes) -> bool:
        """Write a piece of a chunked body that has begun; False, and nothing is written, where ``send`` has to wait."""
        if not self._open or not data or self._connection.write_paused:
            return False
        self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Make the head; it is held until there is something of the body to go with it."""
        found = dict(headers)
        if len(found) != len(headers) or b"transfer-encoding" in found or not b"".join(found).islower():
            headers, found = ordered(headers)
        close = coding = b""
        if b"close" in found.get(b"connection", b"").lower():
            self.keeps = False
        elif not self.keeps or (self.more and self._expects):
            self.keeps, close = False, CLOSE
        length = found.get(b"content-length")
        if self.silent or status in _BODILESS:
            self.silent = True
        elif length is not None:
            self._left = int(length)
        elif not self.old:
            self._chunked, coding = True, CHUNKED
        defaults = self._connection.defaults()
        self._held = b"".join((STATUS_LINES[status], defaults, joined(headers), close, coding, b"\r\n"))
        self._started = True

    def _write(self, body: bytes, more: bool) -> None:
        if self._chunked:
            body = _chunked(body, more)
        elif self.silent:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("The response's body is not as long as its content-length says.")
        if not self.begun:
            self.begun, self._open = True, self._chunked
            body, self._held = self._held + body, b""
        if body:
            self._connection.transport.write(body)
        if not more:
            self._end()

    def _end(self) -> None:
        self.complete, self._open, self.on_gone = True, False, None
        if self.waiters is not None:
            self.wake()
        self._connection.answered(self)


def _chunked(body: bytes, more: bool) -> bytes:
    """Return a piece of a body as a chunk, with the last one behind it where there is no more."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return chunk if more else chunk + b"0\r\n\r\n"
