"""A newly trained classifier beside the one in use: its verdicts are counted, and nothing goes by them."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.route.classify import classify, load
from app.route.tiers import tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.call import Ask, Verdict
    from app.gateway import Gateway
    from app.route.classify import Model
    from app.settings import Settings
    from app.trace import Served

_PAUSE_S = 0.02
"""Between two comparisons, so that they take half a hundredth of the process's time at most."""
_LOOK_S = 1.0
log = logging.getLogger("sluice")


class Rival:
    """Compares CLASSIFIER_CANDIDATE with the classifier in use.

    Args:
        gateway: what all calls share.
        clock: seconds, monotonic.
    """

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway = gateway
        self._clock = clock
        self._next = 0.0
        self._path = ""
        self._model: Model | None = None

    async def run(self) -> None:
        """Follow the setting."""
        while True:
            wanted = self._gateway.live.current.classifier_candidate
            if wanted != self._path:
                self._path = wanted
                self._model = await asyncio.to_thread(_loaded, wanted) if wanted else None
            await asyncio.sleep(_LOOK_S)

    def after(self, ask: Ask, served: Served) -> None:
        """Compare on one call; called after each that was served well."""
        used, now = served.record.verdict, self._clock()
        if self._model is None or used is None or now < self._next:
            return
        self._next = now + _PAUSE_S
        settings = self._gateway.live.current
        tools = bool(ask.body.get("tools"))
        verdicts = [classify(ask.body["messages"], tools, model) for model in (None, self._model)]
        self._gateway.metrics.parity.compared(_differ(verdicts[0], verdicts[1], settings))


def _loaded(path: str) -> Model | None:
    try:
        return load(Path(path))
    except (OSError, ValueError, KeyError) as error:
        log.warning("CLASSIFIER_CANDIDATE: %s cannot be used: %s", path, error)
        return None


def _differ(one: Verdict, other: Verdict, settings: Settings) -> str:
    kinds = one.kind != other.kind
    tiers = tier(one.complexity, settings) != tier(other.complexity, settings)
    return {(False, False): "same", (True, False): "kind", (False, True): "tier", (True, True): "both"}[kinds, tiers]
