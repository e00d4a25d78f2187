"""The composition root: what there is, wired together, and its life."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route

from app import __version__
from app.api import errors, openapi, ops
from app.api.admin import admin
from app.api.admin_calls import admin_calls
from app.api.admin_keys import admin_keys
from app.api.admin_parity import admin_parity
from app.api.admin_roles import admin_roles
from app.api.batches import batches
from app.api.calls import CallEndpoint
from app.api.completions import Completions
from app.api.count_tokens import counting
from app.api.direct import Direct
from app.api.dress import Dress, Embeddings
from app.api.edge import Cors, Edge
from app.api.files import files
from app.api.messages import Messages
from app.api.relays import RelayCall, dress_of
from app.api.responses import Responses
from app.api.responses_store import stored
from app.api.savings import money
from app.endpoints import RELAYS
from app.gateway import Gateway
from app.guard.lanes import Lanes
from app.ledger.prices import Prices
from app.life import life
from app.prompts.library import Library
from app.route.resolve import chain_of_role
from app.settings import Live
from app.telemetry import logs
from app.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from app.call import Target

ENV_FILE = "SLUICE_ENV_FILE"
"""Set by the command line for the workers: which file holds the settings."""
_ENDPOINTS: dict[str, type[Dress]] = {
    "/chat/completions": Dress,
    "/embeddings": Embeddings,
    "/responses": Responses,
    "/messages": Messages,
    "/completions": Completions,
}
_EXPOSED = (
    *("x-request-id", "server-timing", "retry-after", "x-sluice-target", "x-sluice-attempts", "x-sluice-role"),
    *("x-sluice-cache", "x-sluice-cost-usd", "x-sluice-saved-usd"),
)


def create_app(live: Live | None = None) -> Direct:
    """Build the app; what needs an event loop is made when it starts.

    Args:
        live: the settings; by default those of the environment and of the file that ``SLUICE_ENV_FILE`` names.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    live = live or Live(Path(os.environ.get(ENV_FILE, ".env")))
    settings = live.current
    logs.setup(settings.log_level, settings.log_format)
    app = Direct(title="Sluice", version=__version__, lifespan=life, redirect_slashes=False)
    metrics = Metrics(_Labels(live))
    prices = Prices(live)
    gateway = Gateway(
        live=live,
        backends=None,  # type: ignore[arg-type]
        lanes=Lanes(_Told(metrics)),
        metrics=metrics,
        prices=prices,
        library=Library(settings.prompts_dir),
    )
    gateway.hooks += [metrics.observe, metrics.money(prices.is_own).observe, logs.perf]
    app.state.gateway = gateway
    for path, dress in _ENDPOINTS.items():
        _mount(app, path, CallEndpoint(gateway, dress))
    for name, relay in RELAYS.items():
        _mount(app, relay.path, CallEndpoint(gateway, dress_of(name), RelayCall))
    for router in (ops.public, admin, admin_calls, admin_keys, admin_parity, admin_roles):  # health first: it is found
        app.include_router(router)  # by looking at one router after the other
    for prefix in ("/v1", ""):
        for router in (ops.calls, money, stored, counting, files, batches):
            app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")
    errors.install(app)
    openapi.install(app)
    app.add_middleware(
        Cors,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=86400,
    )
    app.add_middleware(Edge, gateway=gateway)
    app.shorten(gateway)
    return app


def _mount(app: Direct, path: str, endpoint: CallEndpoint) -> None:
    """Serve an endpoint with and without ``/v1``."""
    app.router.routes += [Route(prefix + path, endpoint, methods=["POST"]) for prefix in ("/v1", "")]


class _Labels:
    """Labels of targets from a closed set: what the configuration names; everything else is ``backend/other``."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._generation = -1
        self._known: dict[Target, str] = {}

    def __call__(self, target: Target) -> str:
        if self._generation != self._live.generation:
            self._generation = self._live.generation
            settings = self._live.current
            chains = [chain_of_role(role, settings) for role in settings.chains]
            self._known = {choice.target: str(choice.target) for chain in chains for choice in chain}
        return self._known.get(target) or f"{target.backend}/other"


class _Told:
    """Tells metrics and log of every change of a breaker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, target: Target, old: str, new: str, event: str) -> None:
        self._metrics.breaker_changed(target, new, event)
        logs.log.warning("breaker of %s: %s -> %s (%s)", target, old, new, event)
