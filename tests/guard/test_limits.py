from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.call import KeyTerms
from app.guard.limits import Parallel, Quota, RateLimitedError, Rates
from app.guard.redis_client import RedisClient
from tests.guard.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def _key(name: str = "k", **limits: int) -> KeyTerms:
    return KeyTerms(name, name, "tenant", **limits)  # type: ignore[arg-type]


async def _enter(rates: Rates, key: KeyTerms, tokens: int = 0, times: int = 1) -> list[Quota]:
    left: list[Quota] = []
    for _ in range(times):
        left = await rates.enter(key, tokens)
    return left


@pytest.fixture(params=["memory", "redis"])
async def rates(request: pytest.FixtureRequest) -> AsyncIterator[Rates]:
    url = "" if request.param == "memory" else request.getfixturevalue("redis_server").url
    made = Rates(url)
    yield made
    await made.aclose()


async def test_calls_a_minute(rates: Rates) -> None:
    key = _key(rpm=3)
    assert [quota.remaining for quota in await _enter(rates, key)] == [2]
    await _enter(rates, key, times=2)
    with pytest.raises(RateLimitedError) as caught:
        await rates.enter(key, 0)
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.retry_after_s is not None
    assert 1 <= error.retry_after_s <= 120
    assert [(quota.kind, quota.limit, quota.remaining) for quota in error.quotas] == [("requests", 3, 0)]
    await _enter(rates, _key("other", rpm=3))


async def test_tokens_a_minute_those_used_beyond_the_estimate_too(rates: Rates) -> None:
    key = _key(tpm=100)
    assert [quota.remaining for quota in await _enter(rates, key, 30)] == [70]
    await rates.charge(key, 60)
    assert [quota.remaining for quota in await _enter(rates, key, 5)] == [5]
    await rates.charge(key, 500)
    with pytest.raises(RateLimitedError) as caught:
        await rates.enter(key, 1)
    assert caught.value.type == "tokens"
    assert caught.value.quotas[0].remaining == 0


async def test_a_call_refused_for_its_rate_costs_no_tokens(rates: Rates) -> None:
    key = _key(rpm=1, tpm=100)
    assert [quota.kind for quota in await _enter(rates, key, 10)] == ["requests", "tokens"]
    with pytest.raises(RateLimitedError) as caught:
        await rates.enter(key, 10)
    assert [(quota.kind, quota.remaining) for quota in caught.value.quotas] == [("requests", 0), ("tokens", 90)]


async def test_hosts_count_together_and_a_lost_redis_costs_no_call(redis_server: RedisServer) -> None:
    one, other, key = Rates(redis_server.url), Rates(redis_server.url), _key(rpm=2)
    await _enter(one, key)
    await _enter(other, key)
    with pytest.raises(RateLimitedError):
        await one.enter(key, 0)
    redis_server.kill()
    await _enter(one, key, times=2)
    with pytest.raises(RateLimitedError):
        await one.enter(key, 0)
    await one.charge(key, 5)
    await one.aclose()
    await other.aclose()


async def test_calls_at_once() -> None:
    parallel, key = Parallel(), _key(max_parallel=2)
    places = [await parallel.enter(key, 10) for _ in range(2)]
    with pytest.raises(RateLimitedError) as caught:
        await parallel.enter(key, 10)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    await parallel.leave(key, places[0])
    places[0] = await parallel.enter(key, 10)
    for place in places:
        await parallel.leave(key, place)
    assert parallel._here == {}


async def test_calls_at_once_on_all_hosts(redis_server: RedisServer) -> None:
    clients = [RedisClient(redis_server.url), RedisClient(redis_server.url)]
    one, other = (Parallel(client) for client in clients)
    key = _key(max_parallel=2)
    place = await one.enter(key, 10)
    await other.enter(key, 10)
    for parallel in (one, other):
        with pytest.raises(RateLimitedError):
            await parallel.enter(key, 10)
    await one.leave(key, place)
    await other.enter(key, 10)
    redis_server.kill()
    await one.enter(key, 10)
    for client in clients:
        await client.aclose()


async def test_a_call_that_never_says_it_ended_is_forgotten(redis_server: RedisServer) -> None:
    client = RedisClient(redis_server.url)
    gone, here = Parallel(client), Parallel(client)
    key = _key(max_parallel=1)
    await gone.enter(key, -9.9)  # a tenth of a second of the slack is left
    with pytest.raises(RateLimitedError):
        await here.enter(key, 10)
    while True:
        try:
            await here.enter(key, 10)
        except RateLimitedError:
            continue
        break
    await client.aclose()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0ms"), (0.02, "20ms"), (7.66, "7.66s"), (30, "30s"), (90, "1m30s"), (60, "1m0s")]
)
def test_times_are_written_as_openai_does(seconds: float, told: str) -> None:
    assert dict(Quota("requests", 5, 4, seconds).headers()) == {
        b"x-ratelimit-limit-requests": b"5",
        b"x-ratelimit-remaining-requests": b"4",
        b"x-ratelimit-reset-requests": told.encode(),
    }
