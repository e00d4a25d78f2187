"""Every backend that is in use, built when it is first needed and anew when its configuration changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from app.backend.engine_host import EngineHost
from app.backend.http import HttpClient
from app.backend.mlx import MlxBackend
from app.backend.openai_http import OpenAIBackend

if TYPE_CHECKING:
    from pathlib import Path

    from app.backend.base import Backend
    from app.call import BackendConfig


class Backends:
    """Backends by name, over one HTTP client. Make it inside of the event loop."""

    def __init__(self, max_answer_bytes: int, directory: Path) -> None:
        """Take the most that an answer may be, and the directory in which the workers of this host meet."""
        self.client = HttpClient()
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

    def restarts(self) -> int:
        """Return how often this worker has seen the engine end."""
        return self.engine.restarts if self.engine is not None else 0

    def trouble(self) -> str | None:
        """Return why local models are not to be relied on, or None."""
        return self.engine.trouble if self.engine is not None else None

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()
        if self._engine_client is not None:
            await self._engine_client.close()
        if self.engine is not None:
            await self.engine.close()
