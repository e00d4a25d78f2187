"""Rate limits of keys: calls and tokens a minute, calls at once. In memory, or in Redis for all workers and hosts."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limits import RateLimitItem
    from limits.aio.storage import Storage
    from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
    from redis.asyncio import ConnectionPool

    from app.call import KeyTerms
    from app.guard.redis_client import RedisClient

_MOST_KEYS = 10_000
"""Keys whose minute is held in memory; the one that called least recently is forgotten first."""
_REDIS_TIMEOUT_S = 0.2
_REDIS_REST_S = 2.0
"""As in app.guard.redis_client: a call never waits long for Redis, and not every call tries."""
_SLACK_S = 10.0
"""A call that did not say that it ended is forgotten this long after its deadline."""

# Members are calls, scores the times after which they are as good as gone.
_ENTER = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_LEAVE = "return redis.call('ZREM', KEYS[1], ARGV[1])"


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of one limit: as OpenAI's ``x-ratelimit-*`` headers say it.

    Attributes:
        kind: ``requests`` or ``tokens``.
        reset_s: seconds until the limit is whole again.
    """

    kind: str
    limit: int
    remaining: int
    reset_s: float

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the three headers."""
        told = (("limit", str(self.limit)), ("remaining", str(self.remaining)), ("reset", _duration(self.reset_s)))
        return [(f"x-ratelimit-{name}-{self.kind}".encode(), value.encode()) for name, value in told]


def _duration(seconds: float) -> str:
    """Write a time as OpenAI does: ``1m30s``, ``7.66s``, ``20ms``."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.2f}".rstrip("0").rstrip(".") + "s"


@dataclass(slots=True)
class _Counters:
    """The two windows of ``limits``, over one storage."""

    storage: Storage
    calls: SlidingWindowCounterRateLimiter = field(init=False)
    tokens: FixedWindowRateLimiter = field(init=False)

    def __post_init__(self) -> None:
        from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

        self.calls = SlidingWindowCounterRateLimiter(self.storage)
        self.tokens = FixedWindowRateLimiter(self.storage)


class Rates:
    """Calls and tokens a minute.

    Calls are counted by a sliding window; one that is refused does not count. Tokens are counted in minutes that begin
    with the first call: a call's prompt before, by an estimate, and the rest when it has ended. So a minute may end
    above its limit by what was under way, and nothing more begins until it is over.

    Args:
        redis_url: where all workers and hosts count together; empty counts in this process alone.
        clock: seconds, monotonic.
    """

    def __init__(self, redis_url: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rests_until = float("-inf")
        self._pool = _redis_pool(redis_url) if redis_url else None
        self._redis = _Counters(_redis_storage(self._pool)) if self._pool is not None else None
        # A storage for each key: one for all would look at every key's windows with every call.
        self._local: OrderedDict[str, _Counters] = OrderedDict()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.disconnect()

    async def enter(self, key: KeyTerms, tokens: int) -> list[Quota]:
        """Count a call of about ``tokens`` prompt tokens; return what is left.

        Raises:
            RateLimitedError: 429, a limit is reached.
        """
        from limits.errors import StorageError

        if self._redis is not None and self._clock() >= self._rests_until:
            try:
                return await _enter(self._redis, key, tokens)
            except StorageError:
                self._rests_until = self._clock() + _REDIS_REST_S
        return await _enter(self._of(key), key, tokens)

    async def charge(self, key: KeyTerms, tokens: int) -> None:
        """Count tokens that a call has used beyond those counted before."""
        from limits.errors import StorageError

        if key.tpm is None or tokens <= 0:
            return
        if self._redis is not None and self._clock() >= self._rests_until:
            try:
                await self._redis.tokens.hit(_item(key.tpm), "tokens", key.id, cost=tokens)
            except StorageError:
                self._rests_until = self._clock() + _REDIS_REST_S
            return
        await self._of(key).tokens.hit(_item(key.tpm), "tokens", key.id, cost=tokens)

    def _of(self, key: KeyTerms) -> _Counters:
        from limits.aio.storage import MemoryStorage

        found = self._local.get(key.id)
        if found is None:
            found = self._local[key.id] = _Counters(MemoryStorage())
            if len(self._local) > _MOST_KEYS:
                self._local.popitem(last=False)
        self._local.move_to_end(key.id)
        return found


def _redis_pool(url: str) -> ConnectionPool:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return ConnectionPool.from_url(
        url,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def _redis_storage(pool: ConnectionPool) -> Storage:
    from limits.aio.storage import RedisStorage

    options: dict[str, Any] = {"connection_pool": pool}
    return RedisStorage(
        "async+redis://", wrap_exceptions=True, implementation="redispy", key_prefix="sluice:limit", **options
    )


def _item(limit: int) -> RateLimitItem:
    from limits import RateLimitItemPerMinute

    return RateLimitItemPerMinute(limit)


async def _enter(counters: _Counters, key: KeyTerms, tokens: int) -> list[Quota]:
    left, full = [], None
    if key.rpm is not None:
        item = _item(key.rpm)
        fits = await counters.calls.hit(item, "requests", key.id)
        left.append(_quota("requests", key.rpm, *await counters.calls.get_window_stats(item, "requests", key.id)))
        full = None if fits else left[-1]
    if key.tpm is not None:
        item = _item(key.tpm)
        open_now = await counters.tokens.test(item, "tokens", key.id)
        if open_now and full is None:
            await counters.tokens.hit(item, "tokens", key.id, cost=tokens)
        left.append(_quota("tokens", key.tpm, *await counters.tokens.get_window_stats(item, "tokens", key.id)))
        full = full if open_now or full is not None else left[-1]
    if full is not None:
        raise _refused(key, full, left)
    return left


def _quota(kind: str, limit: int, reset_at: float, remaining: int) -> Quota:
    return Quota(kind, limit, max(0, int(remaining)), max(0.0, reset_at - time.time()))


def _refused(key: KeyTerms, quota: Quota, quotas: list[Quota]) -> RateLimitedError:
    message = (
        f"Rate limit reached for the key {key.name!r} on {quota.kind} per min: Limit {quota.limit}. "
        f"Please try again in {_duration(quota.reset_s)}."
    )
    return RateLimitedError(message, type=quota.kind, retry_after_s=max(quota.reset_s, 1.0), quotas=quotas)


class RateLimitedError(PolicyError):
    """A key has reached a limit; ``quotas`` say which."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    fault = "policy_rate_limited"

    def __init__(self, message: str, *, quotas: Sequence[Quota] = (), **told: Any) -> None:
        super().__init__(message, **told)
        self.quotas = tuple(quotas)


class Parallel:
    """Calls at once by key."""

    def __init__(self, redis: RedisClient | None = None) -> None:
        self._redis = redis
        self._here: dict[str, int] = {}

    async def enter(self, key: KeyTerms, deadline_s: float) -> str:
        """Take a place that is held until ``leave``, ``deadline_s`` seconds at most; return its name.

        Raises:
            RateLimitedError: 429, there is none.
        """
        most = key.max_parallel or 0
        if self._here.get(key.id, 0) >= most:
            raise _crowded(key)
        self._here[key.id] = self._here.get(key.id, 0) + 1
        place = uuid.uuid4().hex
        try:
            fits = await self._enter_redis(key, most, place, deadline_s)
        except BaseException:
            self._leave_here(key)
            raise
        if not fits:
            self._leave_here(key)
            raise _crowded(key)
        return place

    async def _enter_redis(self, key: KeyTerms, most: int, place: str, deadline_s: float) -> bool:
        if self._redis is None or not self._redis.usable:
            return True
        held_ms = int((deadline_s + _SLACK_S) * 1000)
        fits = await self._redis.run(_ENTER, [f"sluice:parallel:{key.id}"], [most, place, held_ms])
        return fits is None or bool(fits)  # None: Redis is away

    async def leave(self, key: KeyTerms, place: str) -> None:
        """Give a place back."""
        self._leave_here(key)
        if self._redis is not None and self._redis.usable:
            await self._redis.run(_LEAVE, [f"sluice:parallel:{key.id}"], [place])

    def _leave_here(self, key: KeyTerms) -> None:
        left = self._here[key.id] - 1
        if left:
            self._here[key.id] = left
        else:
            del self._here[key.id]


def _crowded(key: KeyTerms) -> RateLimitedError:
    return RateLimitedError(
        f"The key {key.name!r} may make {key.max_parallel} calls at once. Try again when one of them has ended.",
        retry_after_s=1.0,
    )
