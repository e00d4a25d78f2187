"""FastAPI, with a shorter way to the endpoints that every call goes through."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Route

from app.api.edge import Edge

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Receive, Send

    from app.gateway import Gateway

_ORIGIN = b"origin"


class Direct(FastAPI):
    """An app whose raw ASGI endpoints are reached by one look into a dict.

    FastAPI's own layers, a dozen of them, find the route, catch what the endpoints do not raise, limit what they limit
    themselves, and add what only a web page needs: together they cost more than the rest of the edge. A call from a web
    page, of another method or with an unusual path still takes the way through them: the same endpoints at its end.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._direct: dict[str, ASGIApp] = {}

    def shorten(self, gateway: Gateway) -> None:
        """Take note of the raw endpoints; call it when all routes are there."""
        routes = [route for route in self.router.routes if type(route) is Route and _is_raw(route)]
        self._direct = {route.path: Edge(route.app, gateway) for route in routes}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        direct = self._direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if direct is None or scope.get("root_path") or any(name == _ORIGIN for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)
        else:
            await direct(scope, receive, send)


def _is_raw(route: Route) -> bool:
    """Whether a route's endpoint is an object that speaks ASGI itself, not a function that Starlette wraps."""
    endpoint = route.endpoint
    if "POST" not in (route.methods or ()) or route.param_convertors:
        return False
    return not inspect.isroutine(endpoint) and not inspect.isclass(endpoint)
