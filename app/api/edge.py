"""What is the same on every URL, as one pure ASGI layer: request id, path, and the way out."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from app.api import respond
from app.api.parse import ClientGoneError
from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.gateway import Gateway

log = logging.getLogger("sluice")
_REQUEST_ID = re.compile(rb"[\w.:-]{1,128}")


class Edge:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give every response an ``x-request-id``, that of a bug too; while draining, have connections closed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        path: str = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
        named = _Named(send, request_id, self._gateway)
        try:
            await self._app(scope, receive, named)
        except ClientGoneError:
            return
        except Exception:
            log.exception("bug in %s %s", scope["method"], path)
            if named.started:
                raise
            await respond.send_error(named, SluiceError(respond.INTERNAL, code="internal_error"), [])


class _Named:
    """Sends, with what every response has added to its head."""

    def __init__(self, send: Send, request_id: bytes, gateway: Gateway) -> None:
        self._send = send
        self._request_id = request_id
        self._gateway = gateway
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = message.setdefault("headers", [])
            headers.append((b"x-request-id", self._request_id))
            if self._gateway.draining:
                headers.append((b"connection", b"close"))
        await self._send(message)


def _request_id(scope: Scope) -> bytes:
    """Take the caller's id where it is harmless, so that one id runs through a caller's logs and ours."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"req_" + os.urandom(12).hex().encode()
