"""Every backend that is in use, built when it is first needed and anew when its configuration changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from app.backend.anthropic import AnthropicBackend
from app.backend.engine_host import EngineHost
from app.backend.http import HttpClient
from app.backend.mlx import MlxBackend
from app.backend.ollama import OllamaBackend
from app.backend.ollama_models import Listing
from app.backend.openai_http import OpenAIBackend
from app.backend.runloop import Boxes, RunloopBackend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from app.backend.base import Backend
    from app.backend.runloop_box import BoxHook
    from app.config import BackendConfig


class Backends:
    """Backends by name, over one HTTP client. Make it inside of the event loop."""

    def __init__(self, max_answer_bytes: int, directory: Path, hook: BoxHook | None = None) -> None:
        """Take the most that an answer may be, and the directory in which the workers of this host meet.

        Args:
            max_answer_bytes: larger answers are refused.
            directory: where the workers of this host meet.
            hook: told what becomes of devboxes.
        """
        self.client = HttpClient()
        self._boxes = Boxes(self.client, hook)
        self._listing = Listing(self.client)
        self._directory = directory
        self._engine_client: HttpClient | None = None
        self.engine: EngineHost | None = None
        self._max_answer_bytes = max_answer_bytes
        self._built: dict[str, Backend] = {}

    def of(self, config: BackendConfig) -> Backend:
        """Return the backend of this configuration.

        Raises:
            ValueError: it must not be used: a backend with a problem is never built, so that LOCAL_ONLY can be proven.
        """
        backend = self._built.get(config.name)
        if backend is not None and backend.config is config:
            return backend
        if config.problem is not None:
            raise ValueError(f"{config.name} is not usable: {config.problem}")
        self._built[config.name] = built = self._build(config)
        return built

    def _build(self, config: BackendConfig) -> Backend:
        if config.devbox is not None:
            return self._boxes.of(config, self._max_answer_bytes)
        if config.ollama is not None:
            return OllamaBackend(config, self.client, self._max_answer_bytes)
        if config.anthropic is not None:
            return AnthropicBackend(config, self.client, self._max_answer_bytes)
        if config.name != "mlx":
            return OpenAIBackend(config, self.client, self._max_answer_bytes)
        if config.engines:
            elsewhere = [replace(config, base_url=f"{url.removesuffix('/v1')}/v1") for url in config.engines]
            wires = [OpenAIBackend(each, self.client, self._max_answer_bytes) for each in elsewhere]
            return MlxBackend(config, wires, None)
        host = self._host(config)
        if self._engine_client is None:
            self._engine_client = HttpClient(host.socket)
        wire = OpenAIBackend(config, self._engine_client, self._max_answer_bytes)
        return MlxBackend(config, [wire], host)

    def _host(self, config: BackendConfig) -> EngineHost:
        """Return the engine of this host; what it is told when it starts next is what the configuration says then."""
        self._environment = dict(config.environment)
        if self.engine is None:
            self.engine = EngineHost(self._directory, lambda: self._environment)
        return self.engine

    def mlx(self, config: BackendConfig) -> MlxBackend | None:
        """Return the backend of local models if it is usable; no engine is started for it."""
        found = self.of(config) if config.problem is None else None
        return found if isinstance(found, MlxBackend) else None

    def states(self, configs: Mapping[str, BackendConfig]) -> dict[str, tuple[str, str | None]]:
        """Return of every usable devbox its state and why; nothing is asked for it."""
        boxes = [each for each in configs.values() if each.devbox is not None and each.problem is None]
        return {each.name: self._state(each) for each in boxes}

    def _state(self, config: BackendConfig) -> tuple[str, str | None]:
        built = self._built.get(config.name)
        if isinstance(built, RunloopBackend) and built.config.devbox == config.devbox:
            return built.box.shown()
        return "absent", "not asked for yet"

    async def models(self, configs: Mapping[str, BackendConfig]) -> list[str]:
        """Return ``backend/model`` of what Ollamas were last seen to have; looks again in the background."""
        found = await self._listing.of(configs.values())
        for config in configs.values():
            built = self._built.get(config.name)
            if isinstance(built, RunloopBackend) and config.problem is None:
                found += [f"{config.name}/{model}" for model in sorted(built.box.known)]
        return found

    def restarts(self) -> int:
        """Return how often this worker has seen the engine end."""
        return self.engine.restarts if self.engine is not None else 0

    def trouble(self) -> str | None:
        """Return why local models are not to be relied on, or None."""
        return self.engine.trouble if self.engine is not None else None

    async def close(self) -> None:
        """Close every connection."""
        await self._listing.close()
        await self._boxes.close()
        await self.client.close()
        if self._engine_client is not None:
            await self._engine_client.close()
        if self.engine is not None:
            await self.engine.close()
