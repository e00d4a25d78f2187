"""The endpoints around the calls: models, health, metrics, route preview."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from app import __version__
from app.api import auth, front, models, probes
from app.api.parse import decode, make_ask, read_body
from app.api.preview import preview
from app.endpoints import RELAYS, path_of
from app.gateway import Gateway


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that main put into the app's state."""
    gateway: Gateway = request.app.state.gateway
    return gateway


Here = Annotated[Gateway, Depends(gateway_of)]


async def _caller(request: Request) -> auth.Caller:
    gateway = gateway_of(request)
    return await auth.authenticate(dict(request.scope["headers"]), gateway.live.current, gateway.keys)


Caller = Annotated[auth.Caller, Depends(_caller)]


async def _tenant(caller: Caller) -> str:
    return caller.tenant


Tenant = Annotated[str, Depends(_tenant)]
public = APIRouter()
calls = APIRouter()


@public.get("/")
async def root(request: Request, gateway: Here) -> Response:
    """Say what this is and where to look: JSON, or a page for browsers."""
    if front.wants_page(request.headers.get("accept", "")):
        host = request.headers.get("host", "")
        return HTMLResponse(front.page(gateway.live.current, request.url.scheme, host))
    told = {
        "name": "sluice",
        "version": __version__,
        "endpoints": [
            "POST /v1/chat/completions",
            "POST /v1/responses",
            "POST /v1/completions",
            "POST /v1/messages",
            "POST /v1/messages/count_tokens",
            "POST /v1/embeddings",
            *(f"POST {path_of(name)}" for name in RELAYS),
            "POST /v1/files",
            "POST /v1/batches",
            "GET /v1/models",
            "POST /v1/route",
            "GET /health/live",
            "GET /health/ready",
            "GET /metrics",
            "GET /docs",
        ],
    }
    return JSONResponse(told)


@public.get("/health/live")
async def live() -> dict[str, str]:
    """Answer as long as the process serves."""
    return {"status": "live"}


@public.get("/health/ready")
async def ready(gateway: Here) -> Response:
    """Tell whether calls can be served, and what is wrong where they can not."""
    return _response(await probes.ready(gateway))


@public.get("/metrics")
async def metrics(gateway: Here) -> Response:
    """Return Prometheus metrics, summed over the workers."""
    return _response(await probes.metrics(gateway))


def _response(told: probes.Told) -> Response:
    return Response(told.body, told.status, media_type=told.kind)


@calls.get("/models")
async def list_models(gateway: Here, tenant: Tenant) -> dict[str, Any]:  # noqa: ARG001 - admission
    """List what may stand in ``model``."""
    settings = gateway.live.current
    seen = await gateway.backends.models(settings.backend_configs)
    return {"object": "list", "data": models.listing(settings, await gateway.library.shelf(), seen)}


@calls.get("/models/{name:path}")
async def get_model(name: str, gateway: Here, tenant: Tenant) -> dict[str, Any]:  # noqa: ARG001 - admission
    """Return one model."""
    settings = gateway.live.current
    seen = await gateway.backends.models(settings.backend_configs)
    return models.one(name, settings, await gateway.library.shelf(), seen)


@calls.post("/route")
async def route(request: Request, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Preview: the body of a chat call in, the verdict and the plan out; nothing is sent."""
    settings = gateway.live.current
    body = decode(await read_body(request.receive, settings.max_body_mb))
    headers = dict(request.scope["headers"])
    ask = make_ask("chat", body, headers, tenant, settings, request.scope["state"]["request_id"])
    return preview(ask, settings, await gateway.library.shelf(), gateway.prices)
