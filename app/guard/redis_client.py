"""A Redis that calls may use on their way: it answers at once, or is left alone for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_TIMEOUT_S = 0.2
"""Redis answers in under a millisecond: a call that waited longer would be better off without."""
_REST_S = 2.0
"""After a failure, so that one call in this time pays for another try, and not every one."""


class RedisClient:
    """Commands that never raise: what cannot be had is None.

    Args:
        url: ``redis://…``, ``rediss://…`` or ``unix://…``.
        timeout_s: how long Redis may take to connect or to answer, in seconds.
        clock: seconds, monotonic.

    Attributes:
        lost: why the last command failed, or None.
    """

    def __init__(self, url: str, timeout_s: float = _TIMEOUT_S, clock: Callable[[], float] = time.monotonic) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._scripts: dict[str, Any] = {}
        self._clock = clock
        self._rests_until = float("-inf")
        self.lost: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it is worth a try now."""
        return self.lost is None or self._clock() >= self._rests_until

    async def get(self, key: str) -> bytes | None:
        """Return a value."""
        found: bytes | None = await self._tried(self._redis.get(key))
        return found

    async def set(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Set a value that is forgotten after so many milliseconds."""
        await self._tried(self._redis.set(key, value, px=ttl_ms))

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a Lua script in one step."""
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self._redis.register_script(script)
        return await self._tried(known(keys=keys, args=args))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _tried(self, command: Awaitable[Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            answer = await command
        except (RedisError, OSError, TimeoutError) as error:
            self.lost = f"{type(error).__name__}: {error}"
            self._rests_until = self._clock() + _REST_S
            return None
        self.lost = None
        return answer
