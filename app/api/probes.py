"""What machines ask of a gateway again and again: whether it lives, whether it can serve, and its metrics.

Raw ASGI endpoints, as those of the calls are: whoever asks nothing else needs no FastAPI.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import orjson

from app.api.health import local_models, readiness
from app.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from app.gateway import Gateway

_JSON = "application/json"
_UNREADY = 503


class Told(NamedTuple):
    """An answer: its status, its media type, its body."""

    status: int
    kind: str
    body: bytes


async def live(_gateway: Gateway) -> Told:
    """Answer as long as the process serves."""
    return Told(200, _JSON, b'{"status":"live"}')


async def ready(gateway: Gateway) -> Told:
    """Tell whether calls can be served, and what is wrong where they can not."""
    body = readiness(gateway, await local_models(gateway))
    return Told(_UNREADY if body["status"] == "unready" else 200, _JSON, orjson.dumps(body))


async def metrics(gateway: Gateway) -> Told:
    """Tell Prometheus' metrics, summed over the workers."""
    backend = gateway.backends.mlx(gateway.live.current.backend_configs["mlx"])
    if backend is not None:
        gateway.metrics.engines(await backend.ask_engines("/stats"), gateway.backends.restarts())
    return Told(200, CONTENT_TYPE, await asyncio.to_thread(gateway.metrics.text))


class Probe:
    """One of them as an endpoint."""

    def __init__(self, gateway: Gateway, tell: Callable[[Gateway], Awaitable[Told]]) -> None:
        self._gateway = gateway
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Answer."""
        told = await self._tell(self._gateway)
        length = str(len(told.body)).encode()
        headers = [(b"content-length", length), (b"content-type", told.kind.encode())]
        await send({"type": "http.response.start", "status": told.status, "headers": headers})
        await send({"type": "http.response.body", "body": told.body})


def probes(gateway: Gateway) -> dict[str, Probe]:
    """Return the endpoints by their paths."""
    return {
        "/health/live": Probe(gateway, live),
        "/health/ready": Probe(gateway, ready),
        "/metrics": Probe(gateway, metrics),
    }
