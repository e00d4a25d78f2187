"""The HTTP client of the relay, behind three small methods so that another client is one file's change.

aiohttp is the fastest well-kept client measured for this work: see docs/decisions/0002-http-client.md.
"""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from yarl import URL

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import SimpleNamespace

    from multidict import CIMultiDict

    from app.call import Trace, TraceContext

_READ_BUFFER_BYTES = 64 * 1024
"""aiohttp stops reading the socket at twice this: what a slow caller can pile up per stream."""
_DRAIN_S = 0.5
"""How long the end of a body may come after its last event."""
_draining: set[asyncio.Task[None]] = set()
"""Keeps the tasks alive: the event loop itself does not."""
_LARGE_BODY_BYTES = 1024 * 1024


class Reply(Protocol):
    """A response that has begun, however it travels."""

    status: int
    headers: Mapping[str, str]

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` at the body's end. Raises BackendError."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises BackendError."""

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

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` at the body's end.

        Raises:
            BackendError: the connection broke.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _cut(f"The backend's connection broke: {_told(error)}") from error

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BackendError: the connection broke, or the body is larger than the limit.
        """
        content = self._response.content
        parts = []
        size = 0
        try:
            while part := await content.readany():
                parts.append(part)
                size += len(part)
                if size > limit_bytes:
                    raise BackendError(Reason.TOO_LARGE, f"The backend's answer is larger than {limit_bytes} bytes.")
        except (aiohttp.ClientError, OSError) as error:
            raise _cut(f"The backend's answer was cut: {_told(error)}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Give the connection back to the pool once the body's end has come; a backend that lingers is cut off."""
        if self._response.content.at_eof():
            return
        task = asyncio.get_running_loop().create_task(self._drain())
        _draining.add(task)
        task.add_done_callback(_draining.discard)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                while await self._response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        finally:
            self._response.close()

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is already back in the pool."""
        self._response.close()


class _Sending:
    """One request on its way: whose time it takes, and whether its connection was kept from an earlier one."""

    __slots__ = ("reused", "trace")

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.reused = False


class HttpClient:
    """Posts bodies. One for each event loop; must be made inside of it and closed."""

    def __init__(self, socket: Path | None = None) -> None:
        """Make the client; with ``socket``, everything goes through that Unix socket, whatever the URLs say."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0)
            if socket is not None
            else aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
            skip_auto_headers=("User-Agent", "Content-Type"),
            trace_configs=[_connect_stamps()],
        )
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def post(self, url: URL, headers: CIMultiDict[str], body: bytes, connect_s: float, trace: Trace) -> Exchange:
        """Send a request and return once the response's headers are there.

        Raises:
            BackendError: CONNECT, MALFORMED or RESET; with ``retry_after_s`` 0 where a kept connection was used.
        """
        timeout = self._timeouts.get(connect_s)
        if timeout is None:
            timeout = self._timeouts[connect_s] = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        if trace.context is not None:
            headers = _traced(headers, trace.context)
        sending = _Sending(trace)
        data: Any = body if len(body) < _LARGE_BODY_BYTES else io.BytesIO(body)
        try:
            response = await self._session.post(
                url, data=data, headers=headers, timeout=timeout, allow_redirects=False, trace_request_ctx=sending
            )
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            raise BackendError(Reason.CONNECT, f"No connection to the backend: {_told(error)}") from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            raise BackendError(Reason.MALFORMED, f"The backend's response is not HTTP: {_told(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            # A kept connection may close just as it is used again: no reason to wait before the next try.
            raise BackendError(
                Reason.RESET,
                f"The backend closed the connection: {_told(error)}",
                retry_after_s=0.0 if sending.reused else None,
            ) from error
        return Exchange(response)

    async def get(self, url: URL, headers: CIMultiDict[str], timeout_s: float) -> Exchange:
        """Fetch something small off the hot path, such as a list of models.

        Raises:
            BackendError: CONNECT or RESET.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return Exchange(await self._session.get(url, headers=headers, allow_redirects=False))
        except TimeoutError as error:
            raise BackendError(Reason.CONNECT, f"No answer within {timeout_s:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BackendError(Reason.CONNECT, f"No connection to the backend: {_told(error)}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _traced(headers: CIMultiDict[str], context: TraceContext) -> CIMultiDict[str]:
    """Return the headers with the call's place in its trace."""
    traced = headers.copy()
    traced["traceparent"] = context.traceparent
    if context.state:
        traced["tracestate"] = context.state
    return traced


def _cut(message: str) -> BackendError:
    return BackendError(Reason.CUT, message, code="incomplete_answer")


def _told(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__


def _connect_stamps() -> aiohttp.TraceConfig:
    """Close the stage ``connect`` when a request has its connection, new or reused."""

    def stamp(context: SimpleNamespace, *, reused: bool) -> None:
        sending: _Sending | None = context.trace_request_ctx
        if sending is not None:
            sending.reused = reused
            sending.trace.stage_at("connect", time.perf_counter_ns())

    async def new(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        stamp(context, reused=False)

    async def kept(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        stamp(context, reused=True)

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(new)
    config.on_connection_reuseconn.append(kept)
    config.freeze()
    return config


def endpoint_url(base_url: str, path: str) -> URL:
    """Join a backend's base URL and an endpoint's path."""
    return URL(base_url + path, encoded=True)
