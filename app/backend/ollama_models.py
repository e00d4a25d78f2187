"""Which models the Ollamas have, for ``GET /v1/models``: remembered, and looked up again in the background."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from app.backend.ollama_api import OllamaApi
from app.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.backend.http import Client
    from app.config import BackendConfig

_FRESH_S = 30.0
_LOOK_S = 3.0
_FIRST_S = 0.1
"""How long the very first listing waits: an Ollama on this machine answers, or refuses, in a few milliseconds."""


class Listing:
    """The models by backend."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._found: dict[str, tuple[str, ...]] = {}
        self._looked: dict[tuple[str, str], float] = {}
        self._looks: set[asyncio.Task[None]] = set()

    async def of(self, configs: Iterable[BackendConfig]) -> list[str]:
        """Return ``backend/model`` for every model of every usable Ollama; waits only for the very first look."""
        ollamas = [each for each in configs if each.ollama and not each.devbox and each.problem is None]
        looks = [self._look(each) for each in ollamas if self._stale(each)]
        first = [look for new, look in looks if new]
        if first:
            await asyncio.wait(first, timeout=_FIRST_S)
        return [f"{each.name}/{model}" for each in ollamas for model in self._found.get(each.name, ())]

    def _stale(self, config: BackendConfig) -> bool:
        return time.monotonic() - self._looked.get(_key(config), float("-inf")) > _FRESH_S

    def _look(self, config: BackendConfig) -> tuple[bool, asyncio.Task[None]]:
        new = _key(config) not in self._looked
        self._looked[_key(config)] = time.monotonic()
        task = asyncio.create_task(self._refresh(config))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return new, task

    async def _refresh(self, config: BackendConfig) -> None:
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        api = OllamaApi(self._client, config.base_url.removesuffix("/v1"), headers, config.name)
        try:
            self._found[config.name] = tuple(sorted(await api.models(_LOOK_S)))
        except BackendError:
            self._found.pop(config.name, None)

    async def close(self) -> None:
        """Stop looking."""
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)


def _key(config: BackendConfig) -> tuple[str, str]:
    return config.name, config.base_url
