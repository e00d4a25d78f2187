"""The answer cache: bytes by key, in this process's memory and, where there is one, in Redis for all hosts."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.guard.redis_client import RedisClient

_ENTRY_BYTES = 400
"""What an entry costs beside its key and value: measured about 380 B of dict, tuple and str."""
_LARGEST_SHARE = 8
"""An answer larger than this part of the whole cache is not kept: it would drive out too many others."""
_MOST_WRITES = 256
"""Writes to Redis under way; while it is this slow, further ones are not begun."""


class _Entry(NamedTuple):
    value: bytes
    until: float


class MemoryCache:
    """The least recently used go first, by bytes; none is older than ``ttl_s``. Synchronous, for one event loop.

    Args:
        max_bytes: of keys, values and what keeping them costs.
        ttl_s: how long an entry is good, in seconds.
        clock: seconds, monotonic.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self.used_bytes = 0
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> bytes | None:
        """Return what is kept under a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: str, value: bytes) -> None:
        """Keep a value, unless it is too large for this cache."""
        self._drop(key)
        if not self.takes(len(value)):
            return
        self._entries[key] = _Entry(value, self._clock() + self.ttl_s)
        self.used_bytes += _size(key, value)
        self._trim()

    def takes(self, size: int) -> bool:
        """Whether a value of so many bytes would be kept."""
        return size <= self.max_bytes // _LARGEST_SHARE

    def resize(self, max_bytes: int, ttl_s: float) -> None:
        """Change the sizes; entries that are there keep the time they were given."""
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._trim()

    def _trim(self) -> None:
        while self.used_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= _size(key, entry.value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_BYTES


class AnswerCache:
    """Looks into memory first, then into Redis; a Redis that is away or slow costs no call and no wait to speak of."""

    def __init__(self, memory: MemoryCache, redis: RedisClient | None = None) -> None:
        self.memory = memory
        self._redis = redis
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def most_bytes(self) -> int:
        """The size of the largest answer that would be kept."""
        return self.memory.max_bytes // _LARGEST_SHARE

    def resize(self, megabytes: float, ttl_s: float) -> None:
        """Change how much is kept, and for how long."""
        self.memory.resize(int(megabytes * 1024 * 1024), ttl_s)

    async def find(self, key: str) -> bytes | None:
        """Return what is kept under a key, or None."""
        found = self.memory.get(key)
        if found is None and self._redis is not None and self._redis.usable:
            found = await self._redis.get(f"sluice:answer:{key}")
            if found is not None:
                self.memory.put(key, found)
        return found

    def keep(self, key: str, value: bytes) -> None:
        """Keep a value; Redis is told in the background."""
        self.memory.put(key, value)
        redis = self._redis
        if redis is not None and redis.usable and self.memory.takes(len(value)) and len(self._writes) < _MOST_WRITES:
            ttl_ms = max(1, int(self.memory.ttl_s * 1000))
            task = asyncio.get_running_loop().create_task(redis.set(f"sluice:answer:{key}", value, ttl_ms))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)
