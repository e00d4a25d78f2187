"""FastAPI's app: what is asked for now and then. Importing it takes half as long as all the rest of a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.routing import Route

from app import __version__
from app.api import errors, openapi, ops
from app.api.admin import admin
from app.api.admin_calls import admin_calls
from app.api.admin_keys import admin_keys
from app.api.admin_parity import admin_parity
from app.api.admin_roles import admin_roles
from app.api.batches import batches
from app.api.cors import Cors
from app.api.count_tokens import counting
from app.api.edge import Edge
from app.api.files import files
from app.api.responses_store import stored
from app.api.savings import money

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import ASGIApp

    from app.gateway import Gateway

_EXPOSED = (
    *("x-request-id", "server-timing", "retry-after", "x-sluice-target", "x-sluice-attempts", "x-sluice-role"),
    *("x-sluice-cache", "x-sluice-cost-usd", "x-sluice-saved-usd"),
)


def make_site(gateway: Gateway, endpoints: Mapping[str, ASGIApp], origins: Iterable[str]) -> FastAPI:
    """Build the app.

    Args:
        gateway: what all requests share.
        endpoints: the raw ones of calls, by path: calls from web pages come this way too.
        origins: whose pages may call, as CORS_ORIGINS says.
    """
    app = FastAPI(title="Sluice", version=__version__, redirect_slashes=False)
    app.state.gateway = gateway
    app.router.routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]
    for router in (ops.public, admin, admin_calls, admin_keys, admin_parity, admin_roles):
        app.include_router(router)
    for prefix in ("/v1", ""):
        for router in (ops.calls, money, stored, counting, files, batches):
            app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")
    errors.install(app)
    openapi.install(app)
    app.add_middleware(
        Cors,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=86400,
    )
    app.add_middleware(Edge, gateway=gateway)
    return app
