"""The bare ASGI side: bodies in, replies out, keep-alive comments. Knows nothing of models."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import orjson

from app.engine import wire
from app.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from app.errors import SluiceError

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_BODY_LIMIT = 64 << 20
_JSON = [(b"content-type", b"application/json")]
_SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def read_json(receive: Receive) -> dict[str, Any]:
    """Read a request's body.

    Raises:
        CallerError: 400 it is no JSON object, or 413 it is too large.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerError("the client left", status=499)
        part = message.get("body", b"")
        size += len(part)
        if size > _BODY_LIMIT:
            raise CallerError(f"the body is larger than {_BODY_LIMIT >> 20} MiB", status=413, code="body_too_large")
        parts.append(part)
        more = message.get("more_body", False)
    try:
        value = orjson.loads(b"".join(parts) or b"{}")
    except orjson.JSONDecodeError as error:
        raise CallerError(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise CallerError("the body must be a JSON object", code="invalid_json")
    return value


class Reply:
    """One response: a JSON body, or events as they come. The status goes out with the first byte."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._last_sent = 0.0

    async def json(self, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Send a whole JSON response."""
        self.started = True
        length = [(b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": _JSON + length + (headers or [])})
        await self._send({"type": "http.response.body", "body": body})

    async def send(self, events: bytes, *, more: bool = True) -> None:
        """Send events of a stream."""
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _SSE})
        self._last_sent = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": events, "more_body": more})

    async def fail(self, error: SluiceError) -> None:
        """Send an error: with its status where nothing was sent yet, else as the last event, with no [DONE] after."""
        if self.started:
            await self.send(wire.event(error.body()), more=False)
            return
        headers = []
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
        await self.json(orjson.dumps(error.body()), error.status, headers)

    @contextlib.contextmanager
    def kept_alive(self, silence_s: float, say: Callable[[], str]) -> Iterator[None]:
        """Send a comment whenever nothing else was sent for ``silence_s`` seconds while the block runs."""
        if not silence_s:
            yield
            return
        self._last_sent = asyncio.get_running_loop().time()
        pinger = asyncio.get_running_loop().create_task(self._ping(silence_s, say))
        try:
            yield
        finally:
            pinger.cancel()

    async def _ping(self, silence_s: float, say: Callable[[], str]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - self._last_sent
            if quiet >= silence_s:
                await self.send(wire.comment(say()))
                quiet = 0.0
            await asyncio.sleep(silence_s - quiet)
