from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from app.call import KeyTerms
from app.ledger.budget_store import LEASE_S
from app.ledger.budgets import Budgets, BudgetSpentError
from app.ledger.db import Database
from app.ledger.key_store import KeyStore
from app.ledger.key_terms import NewKey
from app.ledger.spend import Spend
from tests.guard.clock import Clock
from tests.ledger.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CENT = Decimal("0.01")


class World:
    """A database, and workers on it that share a wall clock."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.wall = Clock(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp())
        self.clock = Clock()
        self.databases: list[Database] = []

    async def worker(self) -> Budgets:
        database = Database(self.address)
        await database.start()
        self.databases.append(database)
        return Budgets(database, self.clock, self.wall)

    async def key(self, day: str | None = "0.50", month: str | None = None) -> KeyTerms:
        limits = {"budget_day_usd": day, "budget_month_usd": month}
        wanted = NewKey(name="k", **{name: Decimal(usd) for name, usd in limits.items() if usd is not None})
        return (await KeyStore(self.databases[0], self.wall).create(wanted))[1].terms

    async def spent(self) -> tuple[Decimal, Decimal]:
        return (await KeyStore(self.databases[0], self.wall).get("k")).spent_usd

    def pass_s(self, seconds: float) -> None:
        self.wall.pass_s(seconds)
        self.clock.pass_s(seconds)


async def test_the_highest_share_of_all_budgets_is_told_for_day_and_month(world: World) -> None:
    told: dict[str, float] = {}
    worker = await world.worker()
    worker = Budgets(world.databases[0], world.clock, world.wall, told.__setitem__)
    await worker.look()
    assert told == {"day": 0.0, "month": 0.0}
    store, keys = worker._store, KeyStore(world.databases[0], world.wall)
    for name, day, month, usd in (("a", "1", None, "0.25"), ("b", "2", "4", "1.80"), ("gone", "1", "1", "0.99")):
        wanted = NewKey(name=name, budget_day_usd=Decimal(day), budget_month_usd=Decimal(month) if month else None)
        key_id = (await keys.create(wanted))[1].terms.id
        async with world.databases[0].begin() as connection:
            await store.count(connection, [Spend(key_id, world.wall(), Decimal(usd))])
    await keys.revoke("gone")
    await worker.look()
    assert told == pytest.approx({"day": 0.9, "month": 0.45})
    world.pass_s(86_400)  # the next day of the same month
    await worker.look()
    assert told == pytest.approx({"day": 0.0, "month": 0.45})


@pytest.fixture
async def world(database_address: str) -> AsyncIterator[World]:
    made = World(database_address)
    yield made
    for database in made.databases:
        await database.close()


async def _call(budgets: Budgets, key: KeyTerms, *, reserve: Decimal, cost: Decimal) -> bool:
    """Make one call; return whether it was let in."""
    try:
        reservation = await budgets.reserve(key, reserve)
    except BudgetSpentError:
        return False
    await asyncio.sleep(0)
    reservation.settle(cost)
    budgets._noted.append(Spend(key.id, budgets._wall(), cost))
    return True


@pytest.mark.parametrize("workers", [1, 3])
async def test_two_hundred_calls_at_once_go_over_by_no_more_than_one_reservation(world: World, workers: int) -> None:
    """Each costs what it reserved: 50 of 200 may be made, and one more at most."""
    budgets = [await world.worker() for _ in range(workers)]
    key = await world.key("0.50")
    calls = [_call(budgets[number % workers], key, reserve=_CENT, cost=_CENT) for number in range(200)]
    made = sum(await asyncio.gather(*calls))
    for each in budgets:
        await each.flush()
    spent = (await world.spent())[0]
    assert spent == made * _CENT
    assert spent < Decimal("0.50") + _CENT
    assert made >= 50 if workers == 1 else made >= 40
    # What some workers had leased and did not use is there for the others a moment later.
    world.pass_s(1.1)
    for each in budgets:
        await each.renew()
    late = [await _call(budgets[0], key, reserve=_CENT, cost=_CENT) for _ in range(20)]
    await budgets[0].flush()
    assert made + sum(late) == 50
    assert (await world.spent())[0] == Decimal("0.50")


async def test_calls_that_cost_less_than_they_reserved_use_the_budget_up(world: World) -> None:
    budgets = await world.worker()
    key = await world.key("0.50")
    made = 0
    while await _call(budgets, key, reserve=3 * _CENT, cost=_CENT):
        made += 1
        if made % 7 == 0:
            await budgets.flush()
    assert made == 50


async def test_a_restart_changes_nothing(world: World) -> None:
    budgets = await world.worker()
    key = await world.key("0.50")
    made = [await _call(budgets, key, reserve=_CENT, cost=_CENT) for _ in range(30)]
    await budgets.close()
    again = await world.worker()
    made += [await _call(again, key, reserve=_CENT, cost=_CENT) for _ in range(40)]
    assert sum(made) == 50


async def test_what_a_killed_worker_held_is_there_again_once_its_lease_has_run_out(world: World) -> None:
    killed, other = await world.worker(), await world.worker()
    key = await world.key("0.50")
    for _ in range(10):
        await killed.reserve(key, 4 * _CENT)
    await other.reserve(key, 5 * _CENT)
    await other.reserve(key, 6 * _CENT)
    with pytest.raises(BudgetSpentError):
        await other.reserve(key, _CENT)
    world.pass_s(LEASE_S + 0.1)
    for _ in range(4):
        await other.reserve(key, 5 * _CENT)


async def test_a_living_worker_renews_what_its_calls_hold(world: World) -> None:
    one, other = await world.worker(), await world.worker()
    key = await world.key("0.50")
    held = [await one.reserve(key, 5 * _CENT) for _ in range(10)]
    for _ in range(8):
        world.pass_s(5.1)
        await one.renew()
    with pytest.raises(BudgetSpentError):
        await other.reserve(key, _CENT)
    for each in held:
        each.settle(Decimal(0))
    world.pass_s(1.1)
    await one.renew()
    assert await other.reserve(key, _CENT)


@pytest.mark.parametrize(
    ("day", "month", "passes_s", "resets"),
    [
        ("0.05", None, 12 * 3600, "2026-11-27"),
        (None, "0.05", 5 * 86_400, "2026-12-01"),
        ("1", "0.05", 5 * 86_400, "2026-12-01"),
        ("0.05", "1", 12 * 3600, "2026-11-27"),
    ],
)
async def test_it_says_when_there_is_money_again_and_then_there_is(
    world: World, day: str | None, month: str | None, passes_s: float, resets: str
) -> None:
    budgets = await world.worker()
    key = await world.key(day, month)
    assert await _call(budgets, key, reserve=5 * _CENT, cost=5 * _CENT)
    await budgets.flush()
    with pytest.raises(BudgetSpentError) as caught:
        await budgets.reserve(key, _CENT)
    error = caught.value
    assert (error.status, error.type, error.code, error.final) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        True,
    )
    assert f"resets at {resets}T00:00:00+00:00" in error.message
    assert error.retry_after_s is not None
    world.pass_s(error.retry_after_s - 60)
    with pytest.raises(BudgetSpentError):
        await budgets.reserve(key, _CENT)
    world.pass_s(61)
    assert await budgets.reserve(key, _CENT)


async def test_most_calls_wait_for_no_database(world: World) -> None:
    budgets = await world.worker()
    key = await world.key("100")
    for _ in range(400):
        await _call(budgets, key, reserve=3 * _CENT, cost=_CENT)
    assert 0 < budgets.leases < 40


async def test_an_idle_purse_is_forgotten(world: World) -> None:
    budgets = await world.worker()
    key = await world.key()
    await _call(budgets, key, reserve=_CENT, cost=_CENT)
    await budgets.flush()
    world.pass_s(1.1)
    await budgets.renew()
    assert budgets._purses == {}


async def test_while_the_database_is_away_calls_go_on_by_what_was_left(postgres: PostgresServer) -> None:
    world = World(postgres.url.replace("postgresql://", "postgresql+asyncpg://"))
    budgets = await world.worker()
    key = await world.key("0.50")
    made = [await _call(budgets, key, reserve=_CENT, cost=_CENT) for _ in range(20)]
    await budgets.flush()
    postgres.stop()
    try:
        made += [await _call(budgets, key, reserve=_CENT, cost=_CENT) for _ in range(60)]
        assert 45 <= sum(made) <= 51
    finally:
        postgres.start()
    async with asyncio.timeout(20):
        while budgets._noted:
            try:
                await budgets.flush()
            except Exception:  # noqa: BLE001 - it is on its way back
                await asyncio.sleep(0.05)
    assert (await world.spent())[0] == sum(made) * _CENT
    for database in world.databases:
        await database.close()
