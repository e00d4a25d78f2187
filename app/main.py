"""The composition root: what there is, wired together, and its life."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.api.calls import CallEndpoint
from app.api.completions import Completions
from app.api.direct import Direct
from app.api.dress import Dress, Embeddings
from app.api.messages import Messages
from app.api.relays import RelayCall, dress_of
from app.api.responses import Responses
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
    from collections.abc import Iterable

    from fastapi import FastAPI

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
    metrics.add_money(prices.is_own)
    metrics.calls_under_way = lambda: gateway.inflight
    gateway.hooks += [metrics.observe, logs.perf]
    endpoints = _endpoints(gateway)
    return Direct(gateway, life, endpoints, partial(_site, gateway, endpoints, settings.cors_origins))


def _endpoints(gateway: Gateway) -> dict[str, CallEndpoint]:
    """Return the endpoints of calls by their paths, each with and without ``/v1``."""
    calls = {path: CallEndpoint(gateway, dress) for path, dress in _ENDPOINTS.items()}
    calls |= {relay.path: CallEndpoint(gateway, dress_of(name), RelayCall) for name, relay in RELAYS.items()}
    return {prefix + path: each for prefix in ("/v1", "") for path, each in calls.items()}


def _site(gateway: Gateway, endpoints: dict[str, CallEndpoint], origins: Iterable[str]) -> FastAPI:
    from app.api.site import make_site

    return make_site(gateway, endpoints, origins)


class _Labels:
    """Labels of targets from a closed set: what the configuration names or has named; else ``backend/other``.

    A call may be counted after a reload that forgot its target. Any thread may ask.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._generation = -1
        self._known: dict[Target, str] = {}

    def __call__(self, target: Target) -> str:
        if self._generation != self._live.generation:
            generation, settings = self._live.generation, self._live.current
            chains = [chain_of_role(role, settings) for role in settings.chains]
            named = {choice.target: str(choice.target) for chain in chains for choice in chain}
            self._known = {**self._known, **named}
            self._generation = generation
        return self._known.get(target) or f"{target.backend}/other"


class _Told:
    """Tells metrics and log of every change of a breaker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, target: Target, old: str, new: str, event: str) -> None:
        self._metrics.breaker_changed(target, new, event)
        logs.log.warning("breaker of %s: %s -> %s (%s)", target, old, new, event)
