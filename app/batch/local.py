"""Calls to this very process, through everything that a caller's calls go through, without a socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

BACKGROUND = "background"
"""In a scope's state: on whose behalf the call is made. Only this process can put it there: no socket leads to it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """On whose behalf a call is made: the tenant, and the id of the key whose limits hold, where it has any."""

    tenant: str
    key_id: str | None = None


@dataclass(slots=True)
class LocalReply:
    """What came back."""

    status: int = 0
    headers: dict[bytes, bytes] | None = None
    body: bytes = b""
    whole: bool = False

    def header(self, name: bytes) -> str | None:
        """Return a header's value."""
        value = (self.headers or {}).get(name)
        return None if value is None else value.decode("latin-1")


class _Exchange:
    """One call: the body goes in once, then nothing comes until whoever waits for it leaves."""

    def __init__(self, body: bytes, leave: asyncio.Event) -> None:
        self._body: bytes | None = body
        self._leave = leave
        self.reply = LocalReply()

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.reply.status = message["status"]
            self.reply.headers = dict(message["headers"])
        else:
            self.reply.body += message.get("body", b"")
            self.reply.whole = not message.get("more_body", False)


async def post(app: App, path: str, body: bytes, owner: Owner, leave: asyncio.Event) -> LocalReply:
    """Make a call; where ``leave`` is set before its end, it ends as if its caller had hung up."""
    exchange = _Exchange(body, leave)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
        "server": None,
        "state": {BACKGROUND: owner},
    }
    await app(scope, exchange.receive, exchange.send)
    return exchange.reply
