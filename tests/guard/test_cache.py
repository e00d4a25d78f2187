from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from app.guard.cache import AnswerCache, MemoryCache
from app.guard.redis_client import RedisClient
from tests.guard.clock import Clock
from tests.guard.redis_server import RedisServer


def _cache(kilobytes: int = 64, ttl_s: float = 60, clock: Clock | None = None) -> MemoryCache:
    return MemoryCache(kilobytes * 1024, ttl_s, clock or Clock())


def test_what_is_put_is_found_until_its_time_is_up() -> None:
    clock = Clock()
    cache = _cache(ttl_s=60, clock=clock)
    cache.put("k", b"one")
    cache.put("k", b"two")
    clock.pass_s(59.9)
    assert cache.get("k") == b"two"
    clock.pass_s(0.2)
    assert cache.get("k") is None
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    cache = _cache(16)
    for name in "abcdef":
        cache.put(name, b"x" * 1900)
    for name in "abcdefgh":
        if cache.get("a"):
            cache.put(f"{name}2", b"x" * 1900)
    assert cache.get("a") is not None
    assert cache.get("b") is None


def test_what_would_drive_out_too_much_is_not_kept() -> None:
    cache = _cache(8)
    cache.put("k", b"x" * 1024)
    assert cache.get("k")
    cache.put("k", b"x" * 1025)
    assert cache.get("k") is None


def test_a_smaller_cache_lets_go_at_once_and_none_keeps_nothing() -> None:
    cache = _cache(64)
    for number in range(40):
        cache.put(str(number), b"x" * 1000)
    cache.resize(8 * 1024, 60)
    assert 0 < cache.used_bytes <= 8 * 1024
    assert cache.get("39")
    cache.resize(0, 60)
    cache.put("k", b"")
    assert (len(cache), cache.used_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.booleans()), max_size=60))
def test_it_never_holds_more_than_it_may(steps: list[tuple[str, int, bool]]) -> None:
    cache, model = _cache(8), {}
    for key, size, puts in steps:
        if puts:
            cache.put(key, b"x" * size)
            model[key] = size
        found = cache.get(key)
        assert found is None or len(found) == model[key]
        assert cache.used_bytes <= 8 * 1024
    assert (cache.used_bytes == 0) == (len(cache) == 0)


async def _kept(client: RedisClient, key: str) -> None:
    async with asyncio.timeout(5):
        while await client.get(f"sluice:answer:{key}") is None:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0)


async def test_what_one_host_kept_another_finds(redis_server: RedisServer) -> None:
    clients = [RedisClient(redis_server.url), RedisClient(redis_server.url)]
    one, other = (AnswerCache(_cache(), client) for client in clients)
    one.keep("k", b"answer")
    await _kept(clients[1], "k")
    assert await other.find("k") == b"answer"
    assert other.memory.get("k") == b"answer"
    assert await other.find("unknown") is None
    for client in clients:
        await client.aclose()


async def test_a_lost_redis_costs_one_try_and_then_none_for_a_while(redis_server: RedisServer) -> None:
    clock = Clock()
    client = RedisClient(redis_server.url, clock=clock)
    cache = AnswerCache(_cache(), client)
    redis_server.kill()
    assert await cache.find("k") is None
    assert "ConnectionError" in str(client.lost)
    assert not client.usable
    cache.keep("k", b"answer")
    assert await cache.find("k") == b"answer"
    redis_server.start()
    clock.pass_s(2.1)
    assert await cache.find("unknown") is None
    assert str(client.lost) == "None"
    await client.aclose()
