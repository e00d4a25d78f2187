"""Breakers' words in Redis, for gateways on several hosts. The script and its keys are all there is of it in Redis."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import orjson

from app.guard.share import KEEP_S, News, Order, StoreLost, Word, add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

# Local Redis answers in under a millisecond; one that takes longer than this is as good as lost, and nobody waits.
_TIMEOUT_S = 1.0
# A gateway tells its counts in every round (0.25 s); after this it is gone and its counts with it.
_COUNTS_MS = 5000

# Everything of one round in one step. Values are "<time> <json>": the newer of two stays. Counts are dated by Redis's
# own clock, so that hosts need not agree on the time to see that one of them is gone.
_EXCHANGE = """
local function newest(key, from, count)
  for i = from, from + 3 * count - 1, 3 do
    local there = redis.call('HGET', key, ARGV[i])
    if not there or tonumber(string.match(there, '^%d+')) < tonumber(ARGV[i + 1]) then
      redis.call('HSET', key, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    end
  end
  return redis.call('HGETALL', key)
end
local function fresh(key, now, keep)
  local kept, all = {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if now - tonumber(string.match(all[i + 1], '^%d+')) > keep then
      redis.call('HDEL', key, all[i])
    else
      kept[#kept + 1] = all[i]
      kept[#kept + 1] = all[i + 1]
    end
  end
  return kept
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local words, orders = tonumber(ARGV[5]), tonumber(ARGV[6])
newest(KEYS[1], 7, words)
local ordered = newest(KEYS[2], 7 + 3 * words, orders)
redis.call('HSET', KEYS[3], ARGV[1], string.format('%d', now) .. ' ' .. ARGV[2])
return {fresh(KEYS[1], now * 1000, tonumber(ARGV[3]) * 1000), ordered, fresh(KEYS[3], now, tonumber(ARGV[4]))}
"""
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisStore:
    """A Redis as a store of breakers' words, under keys that begin with ``sluice:``.

    Args:
        url: ``redis://…``, ``rediss://…`` or ``unix://…``.
        origin: this process's name among the gateways; made up where none is given.
        timeout_s: how long Redis may take to connect or to answer, in seconds.
    """

    name = "redis"

    def __init__(self, url: str, origin: str | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._origin = origin or uuid.uuid4().hex
        # No retries here: the next round is the retry.
        self._redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._scripts = {text: self._redis.register_script(text) for text in (_EXCHANGE, _TAKE, _DROP)}

    async def exchange(self, told: News) -> News:
        """See Store.

        Raises:
            StoreLost: Redis is away, slow, or not what it should be.
        """
        dated = [
            part for known in (told.words, told.orders) for lane, one in known.items() for part in _packed(lane, one)
        ]
        words, orders, counts = await self._run(
            _EXCHANGE,
            ["sluice:breaker:words", "sluice:breaker:orders", "sluice:breaker:counts"],
            [
                self._origin,
                orjson.dumps(told.counts),
                int(KEEP_S * 1e3),
                _COUNTS_MS,
                len(told.words),
                len(told.orders),
                *dated,
            ],
        )
        try:
            return News(
                {lane: Word(at, *rest) for lane, at, rest in _unpacked(words)},
                {lane: Order(at, *rest) for lane, at, rest in _unpacked(orders)},
                add_up(told for origin, _, told in _unpacked(counts) if origin != self._origin),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise StoreLost(f"what is under sluice:breaker:* is not ours: {error}") from error

    async def take_probe(self, lane: str, lease_s: float) -> bool:
        """See Store.

        Raises:
            StoreLost: Redis is away, slow, or not what it should be.
        """
        return bool(await self._run(_TAKE, [f"sluice:breaker:probe:{lane}"], [self._origin, int(lease_s * 1e3)]))

    async def drop_probe(self, lane: str) -> None:
        """See Store.

        Raises:
            StoreLost: Redis is away, slow, or not what it should be.
        """
        await self._run(_DROP, [f"sluice:breaker:probe:{lane}"], [self._origin])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _run(self, text: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            return await self._scripts[text](keys=keys, args=args)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreLost(f"{type(error).__name__}: {error}") from error


def _packed(lane: str, one: Word | Order) -> tuple[str, int, bytes]:
    return lane, one.at_us, orjson.dumps(one[1:])


def _unpacked(flat: Sequence[str]) -> list[tuple[str, int, Any]]:
    """Read HGETALL's alternating fields and ``<time> <json>`` values."""
    dated = ((field, *value.split(" ", 1)) for field, value in zip(flat[::2], flat[1::2], strict=True))
    return [(field, int(at), orjson.loads(text)) for field, at, text in dated]
