"""A small ASGI app behind the server's own protocol, and a caller that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

from app.http1.protocol import Http1Protocol
from tests.conftest import Server

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


async def body_of(receive: Receive) -> bytes:
    """Return a request's body."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer_with(send: Send, body: bytes, status: int = 200, **headers: str) -> None:
    """Send a whole response with a length; underscores in names of headers are hyphens."""
    named = {"content-length": str(len(body)), **headers}
    told = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer with what was asked."""
    body = await body_of(receive)
    told = {
        **{name: scope[name] for name in ("method", "path", "http_version", "root_path", "type", "scheme")},
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    await answer_with(send, orjson.dumps(told))


@dataclass
class Told:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Line:
    """A caller's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def told(self, *, head: bool = False) -> Told:
        """Return the next response; ``head`` says that it answers HEAD.

        Raises:
            asyncio.IncompleteReadError: it is cut.
        """
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert len(headers) == len(lines) - 1, lines
        told = Told(int(lines[0].split()[1]), headers)
        if not head and told.status not in {204, 304}:
            told.body = await self._body(headers)
        return told

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" not in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        assert "content-length" not in headers
        parts = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append((await self.reader.readexactly(size + 2))[:-2])
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)

    async def ask(self, data: bytes) -> Told:
        """Send a request and return the response."""
        self.write(data)
        return await self.told()

    async def ends(self) -> bool:
        """Wait for the server to close the connection; whether nothing else came before."""
        return await self.reader.read() == b""


@dataclass
class Site:
    """A server that serves."""

    server: Server
    port: int
    lines: list[Line] = field(default_factory=list)

    async def open(self) -> Line:
        """Connect."""
        line = Line(*await asyncio.open_connection("127.0.0.1", self.port))
        self.lines.append(line)
        return line

    async def ask(self, data: bytes) -> Told:
        """Send a request on a connection of its own and return the response."""
        return await (await self.open()).ask(data)


@contextlib.asynccontextmanager
async def serving(app: App, **config: Any) -> AsyncIterator[Site]:
    """Serve an app, with uvicorn's settings."""
    told = {"port": 0, "ws": "none", "lifespan": "off", "log_config": None, "server_header": False, **config}
    server = Server(uvicorn.Config(app, http=Http1Protocol, **told))
    async with server.serving() as url:
        site = Site(server, int(url.rpartition(":")[2]))
        try:
            yield site
        finally:
            for each in site.lines:
                each.writer.close()


async def until(so: Callable[[], bool]) -> None:
    """Return once this is so: nobody tells what the server has noticed."""
    async with asyncio.timeout(5):
        while not so():  # noqa: ASYNC110
            await asyncio.sleep(0)


def get(path: str = "/", *headers: str) -> bytes:
    """Return a request without a body."""
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: x", *headers, "")).encode("latin-1")


def post(body: bytes, *headers: str, path: str = "/") -> bytes:
    """Return a request with a body of known length."""
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + body
