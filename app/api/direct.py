"""The app: what every call and every probe goes through by one look into a dict, and FastAPI for all the rest."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

from app.api.edge import Edge
from app.api.probes import probes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.gateway import Gateway

_ORIGIN = b"origin"


class Direct:
    """An app whose raw ASGI endpoints are reached at once.

    FastAPI's own layers, a dozen of them, find the route, catch what the endpoints do not raise, limit what they limit
    themselves, and add what only a web page needs: together they cost more than the rest of the edge. A call from a web
    page, of another method or with an unusual path still takes the way through them: the same endpoints at its end.

    FastAPI would be a third of a start and a tenth of the memory, so it is imported when something is first asked for
    that only it can answer; that one request waits for it, and nothing else does.

    Attributes:
        gateway: what all requests share.
    """

    def __init__(
        self,
        gateway: Gateway,
        life: Callable[[Direct], AbstractAsyncContextManager[None]],
        endpoints: Mapping[str, ASGIApp],
        make_site: Callable[[], FastAPI],
    ) -> None:
        """Take what there is.

        Args:
            gateway: what all requests share.
            life: what runs from the start to the end.
            endpoints: those of calls, by path.
            make_site: makes FastAPI's app, in a thread.
        """
        self.gateway = gateway
        self._life = life
        self._make_site = make_site
        self._site: asyncio.Task[FastAPI] | None = None
        self._direct = {
            "POST": {path: Edge(each, gateway) for path, each in endpoints.items()},
            "GET": {path: Edge(each, gateway) for path, each in probes(gateway).items()},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        ways = self._direct.get(scope["method"])
        direct = ways.get(scope["path"]) if ways is not None else None
        if direct is None or scope.get("root_path") or any(name == _ORIGIN for name, _ in scope["headers"]):
            await (await self.site())(scope, receive, send)
        else:
            await direct(scope, receive, send)

    async def site(self) -> FastAPI:
        """Return FastAPI's app, which is made when it is first asked for; what failed is tried again."""
        if self._site is None or (self._site.done() and self._site.exception() is not None):
            self._site = asyncio.create_task(asyncio.to_thread(self._make_site))
        return await asyncio.shield(self._site)  # who asked may leave meanwhile

    async def _live(self, receive: Receive, send: Send) -> None:
        """Speak ASGI's lifespan protocol."""
        stage = "startup"
        await receive()
        try:
            async with self._life(self):
                await send({"type": "lifespan.startup.complete"})
                stage = "shutdown"
                self.gateway.serving.set()
                await receive()
        except BaseException:
            await send({"type": f"lifespan.{stage}.failed", "message": traceback.format_exc()})
            raise
        await send({"type": "lifespan.shutdown.complete"})
