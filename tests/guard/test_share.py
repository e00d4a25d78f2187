"""Breakers shared between gateways: the same tests over the board and over a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import pytest

from app.guard.board import Board, BoardStore
from app.guard.breaker import Breaker, Forced, Outcome, Permit, Refusal, State
from app.guard.redis_store import RedisStore
from app.guard.share import KEEP_S, News, Sharing, Store, Word
from tests.guard.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guard.redis_server import RedisServer

LANE = "groq/llama"


class Gateway:
    """One process's breakers and its half of the sharing, on clocks of the test."""

    def __init__(self, stores: list[Store], skew_s: float = 0.0) -> None:
        self.clock = Clock()
        self.stores = stores
        self.lanes = {LANE: Breaker(self.clock)}
        self.sharing = Sharing(self.lanes, stores, self.clock, lambda: time.time() + skew_s)

    @property
    def lane(self) -> Breaker:
        return self.lanes[LANE]

    def state(self) -> State:
        return self.lane.state

    def forced(self) -> Forced | None:
        return self.lane.forced

    def report(self, outcome: Outcome, times: int = 1) -> None:
        for _ in range(times):
            given = self.lane.admit()
            assert isinstance(given, Permit), given
            given.report(outcome, "server_error", 500)

    async def round(self) -> None:
        for store in self.stores:
            await self.sharing.sync(store)


async def rounds(*gateways: Gateway, times: int = 1) -> None:
    for _ in range(times):
        for gateway in gateways:
            await gateway.round()


Make = Callable[..., Gateway]


@pytest.fixture(params=["board", "redis"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    numbers = itertools.count()
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    async with AsyncExitStack() as stack:

        async def redis() -> Store:
            return await stack.enter_async_context(aclosing(RedisStore(url)))

        def board() -> Store:
            return BoardStore(Board(tmp_path, str(next(numbers))))

        ready = [await redis() if url else board() for _ in range(3)]
        yield lambda **how: Gateway([ready.pop()], **how)


async def test_an_opening_is_respected_elsewhere(make: Make) -> None:
    one, two = make(), make()
    one.report("failed", 5)
    await rounds(one, two)
    assert two.state() == "open"
    refused = two.lane.admit()
    assert isinstance(refused, Refusal)
    assert refused.last_failure is not None
    assert refused.last_failure[:2] == ("server_error", 500)


async def test_a_recovery_is_believed_elsewhere(make: Make) -> None:
    one, two = make(), make()
    one.report("failed", 5)
    await rounds(one, two)
    one.clock.pass_s(5)
    assert isinstance(one.lane.admit(), Refusal)
    await rounds(one)
    one.report("ok")
    await rounds(one, two)
    assert two.state() == "closed"


async def test_a_dead_key_is_dead_elsewhere_until_one_has_a_new_one(make: Make) -> None:
    one, two = make(), make()
    one.report("dead")
    await rounds(one, two)
    assert two.state() == "dead"
    two.lane.forgive_key()
    await rounds(two, one)
    assert one.state() == "closed"


@pytest.mark.parametrize("forced", ["open", "closed"])
async def test_an_order_is_obeyed_elsewhere_and_taken_back(make: Make, forced: Forced) -> None:
    one, two = make(), make()
    await rounds(one, two)
    one.sharing.force(LANE, forced)
    assert one.forced() == forced
    await rounds(one, two)
    assert two.forced() == forced
    two.sharing.force(LANE, None)
    await rounds(two, one)
    assert one.forced() is None
    assert one.sharing.orders() == {LANE: None}


async def test_nothing_moves_once_all_agree(make: Make) -> None:
    one, two, three = make(), make(), make()
    one.report("failed", 5)
    two.report("failed", 4)
    await rounds(one, two, three)
    moved: list[Any] = []
    for gateway in (one, two, three):
        gateway.lane.hooks.append(lambda *change: moved.append(change))
    await rounds(three, two, one, times=5)
    assert moved == []
    assert {one.state(), two.state(), three.state()} == {"open"}


async def test_a_gateway_that_joins_later_knows(make: Make) -> None:
    one = make()
    one.report("failed", 5)
    one.sharing.force("mlx/other", "open")
    await rounds(one)
    two = make()
    two.lanes["mlx/other"] = Breaker(two.clock)
    await rounds(two)
    assert two.state() == "open"
    assert two.lanes["mlx/other"].forced == "open"


async def test_a_lane_that_comes_later_is_told(make: Make) -> None:
    one, two = make(), make()
    del two.lanes[LANE]
    one.report("failed", 5)
    await rounds(one, two)
    two.lanes[LANE] = Breaker(two.clock)
    await rounds(two, one)
    assert (two.state(), one.state()) == ("open", "open")


async def test_the_last_word_counts_even_if_clocks_differ(make: Make) -> None:
    slow, fast = make(skew_s=-100.0), make(skew_s=100.0)
    fast.report("failed", 5)
    await rounds(fast, slow)
    slow.sharing.force(LANE, "closed")
    slow.sharing.force(LANE, None)
    await rounds(slow, fast)
    assert (slow.state(), fast.state()) == ("closed", "closed")


async def test_failures_seen_by_several_open_the_lane_together(make: Make) -> None:
    one, two, three = make(), make(), make()
    for gateway in (one, two):
        gateway.report("failed", 2)
    three.report("ok")
    await rounds(one, two, three)
    assert three.state() == "closed"
    three.report("failed")
    assert three.state() == "open"


async def test_nobody_counts_its_own_failures_twice(make: Make) -> None:
    one = make()
    one.report("failed", 3)
    await rounds(one, times=2)
    one.report("failed")
    assert one.state() == "closed"


async def test_a_forced_lane_is_an_order_and_no_finding(make: Make) -> None:
    one = make()
    one.sharing.force(LANE, "open")
    await rounds(one, times=2)
    assert (await one.stores[0].exchange(News())).words == {}


async def test_one_probe_over_all_gateways(make: Make) -> None:
    gateways = [make(), make(), make()]
    gateways[0].report("failed", 5)
    await rounds(*gateways)
    for gateway in gateways:
        gateway.clock.pass_s(5)
    probes: list[Permit] = []
    for _ in range(4):
        given = [gateway.lane.admit() for gateway in gateways]
        probes += [one for one in given if isinstance(one, Permit)]
        await rounds(*gateways)
    assert len(probes) == 1
    probes[0].report("failed")
    for _ in range(4):
        given = [gateway.lane.admit() for gateway in gateways]
        assert all(isinstance(one, Refusal) for one in given), "a second probe before its time"
        await rounds(*gateways)


@pytest.mark.parametrize("every_s", [1, 7, 26])
async def test_calls_that_come_seldom_probe_too(make: Make, every_s: int) -> None:
    gateway = make()
    gateway.report("failed", 5)
    for tick in range(every_s * 15 * 4):
        if tick % (every_s * 4) == 0 and isinstance(gateway.lane.admit(), Permit):
            return
        gateway.clock.pass_s(0.25)
        await gateway.round()
    pytest.fail("the lane was never probed")


async def test_a_probe_whose_caller_left_gives_its_turn_to_another_gateway(make: Make) -> None:
    one, two = make(), make()
    one.report("failed", 5)
    await rounds(one, two)
    for gateway in (one, two):
        gateway.clock.pass_s(5)
        gateway.lane.admit()
    await rounds(one, two)
    probe = one.lane.admit()
    assert isinstance(probe, Permit)
    await rounds(one, two)
    probe.report("ignored")
    await rounds(one)
    two.lane.admit()
    await rounds(two)
    assert isinstance(two.lane.admit(), Permit)


async def test_old_words_are_forgotten(make: Make) -> None:
    store = make().stores[0]
    now_us = int(time.time() * 1e6)
    old, new = Word(now_us - int((KEEP_S + 5) * 1e6), "open"), Word(now_us, "open")
    await store.exchange(News(words={"old": old, "new": new}))
    heard = await store.exchange(News())
    assert heard.words == {"new": new}


async def test_the_background_loop_reaches_the_other_within_a_second(make: Make) -> None:
    one, two = make(), make()
    opened = asyncio.Event()
    two.lane.hooks.append(lambda *_: opened.set())
    loops = [asyncio.create_task(gateway.sharing.run()) for gateway in (one, two)]
    one.report("failed", 5)
    await asyncio.wait_for(opened.wait(), 1.0)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


async def test_no_redis_means_the_host_alone_and_says_so(tmp_path: Path, unused_tcp_port: int) -> None:
    async with aclosing(RedisStore(f"redis://127.0.0.1:{unused_tcp_port}")) as nobody:
        one, two = (Gateway([BoardStore(Board(tmp_path, name)), nobody]) for name in "12")
        one.report("failed", 5)
        one.sharing.force("mlx/x", "open")
        await rounds(one, two)
        assert one.sharing.degraded is not None
        assert one.sharing.degraded.startswith("redis: ConnectionError")
        assert two.state() == "open"
        assert two.sharing.orders() == {"mlx/x": "open"}


async def test_without_any_store_each_gateway_probes_for_itself(unused_tcp_port: int) -> None:
    async with aclosing(RedisStore(f"redis://127.0.0.1:{unused_tcp_port}")) as nobody:
        alone = Gateway([nobody])
        alone.report("failed", 5)
        await rounds(alone)
        alone.clock.pass_s(5)
        alone.report("ok")
        assert alone.state() == "closed"


async def test_host_to_host_and_worker_to_worker(tmp_path: Path, redis_server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        gateways = []
        for host, worker in ((1, "1"), (1, "2"), (2, "3")):
            redis = await stack.enter_async_context(aclosing(RedisStore(redis_server.url)))
            gateways.append(Gateway([BoardStore(Board(tmp_path / str(host), worker)), redis]))
        one, two, far = gateways
        one.report("failed", 5)
        far.sharing.force("mlx/x", "open")
        await rounds(*gateways, times=2)
        assert {gateway.state() for gateway in gateways} == {"open"}
        assert two.sharing.orders() == {"mlx/x": "open"}
        moved: list[Any] = []
        for gateway in gateways:
            gateway.lane.hooks.append(lambda *change: moved.append(change))
        two.lane.adopt("closed")
        await rounds(*gateways, times=4)
        assert [change[1] for change in moved] == ["closed"] * 3


async def test_a_redis_with_something_else_in_our_keys_is_lost_not_a_crash(redis_server: RedisServer) -> None:
    async with aclosing(RedisStore(redis_server.url)) as store:
        client = store._redis
        await client.hset("sluice:breaker:orders", "a/b", "1 nonsense")
        gateway = Gateway([store])
        await rounds(gateway)
        assert gateway.sharing.degraded is not None
        await client.set("sluice:breaker:words", "a string")
        await rounds(gateway)
        assert "WRONGTYPE" in gateway.sharing.degraded
        await client.flushall()
        await rounds(gateway)
        assert gateway.sharing.lost == {}


@pytest.fixture
async def two_on_redis(redis_server: RedisServer) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with aclosing(RedisStore(redis_server.url)) as one, aclosing(RedisStore(redis_server.url)) as two:
        yield Gateway([one]), Gateway([two])


@pytest.mark.parametrize(("outcome", "held"), [("failed", True), ("ok", False), ("ignored", False)])
async def test_the_turn_is_held_until_the_next_probe_is_due(
    two_on_redis: tuple[Gateway, Gateway], outcome: Outcome, held: bool
) -> None:
    one, _ = two_on_redis
    store = one.stores[0]
    assert isinstance(store, RedisStore)
    one.report("failed", 5)
    one.clock.pass_s(5)
    await rounds(one)
    assert isinstance(one.lane.admit(), Refusal)
    await rounds(one)
    probe = one.lane.admit()
    assert isinstance(probe, Permit)
    await rounds(one)
    assert await store._redis.pttl(f"sluice:breaker:probe:{LANE}") > 19_000
    one.clock.pass_s(10)
    probe.report(outcome)
    await rounds(one, times=2)
    assert (await store._redis.pttl(f"sluice:breaker:probe:{LANE}") > 9_000) is held


async def test_redis_killed_and_started_again(two_on_redis: tuple[Gateway, Gateway], redis_server: RedisServer) -> None:
    one, two = two_on_redis
    one.sharing.force(LANE, "open")
    one.lanes["b"], two.lanes["b"] = Breaker(one.clock), Breaker(two.clock)
    await rounds(one, two)
    redis_server.kill()
    await rounds(one, two)
    assert one.sharing.degraded is not None
    assert one.sharing.degraded.startswith("redis: ")
    assert (one.forced(), two.forced()) == ("open", "open"), "an order is kept while Redis is away"
    for _ in range(5):
        permit = one.lanes["b"].admit()
        assert isinstance(permit, Permit)
        permit.report("failed")
    await rounds(one, two)
    assert two.lanes["b"].state == "closed"

    redis_server.start()  # empty: nothing was saved
    await rounds(one, two, times=3)
    assert one.sharing.lost == two.sharing.lost == {}
    assert (one.forced(), two.forced()) == ("open", "open"), "an order survives the loss of Redis's memory"
    assert two.lanes["b"].admit().__class__ is Refusal, "what happened meanwhile is told"


async def test_calls_never_wait_for_a_redis_that_hangs(unused_tcp_port: int) -> None:
    hung = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        hung.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", unused_tcp_port):
        async with aclosing(RedisStore(f"redis://127.0.0.1:{unused_tcp_port}", timeout_s=0.1)) as store:
            gateway = Gateway([store])
            began = asyncio.get_running_loop().time()
            task = asyncio.create_task(gateway.round())
            gateway.report("failed", 5)
            assert gateway.state() == "open"
            await task
            assert asyncio.get_running_loop().time() - began < 1
            assert gateway.sharing.degraded is not None
        await hung.wait()
