"""Every backend that is in use, built when it is first needed and anew when its configuration changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.backend.http import HttpClient
from app.backend.openai_http import OpenAIBackend

if TYPE_CHECKING:
    from app.backend.base import Backend
    from app.call import BackendConfig


class Backends:
    """Backends by name, over one HTTP client. Make it inside of the event loop."""

    def __init__(self, max_answer_bytes: int) -> None:
        self.client = HttpClient()
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
        self._built[config.name] = built = OpenAIBackend(config, self.client, self._max_answer_bytes)
        return built

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()
