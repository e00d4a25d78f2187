"""Tests of parity in the database: SQLite and PostgreSQL, several hosts, restarts, the day's budget."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.call import Target
from app.ledger import parity
from app.ledger.db import Database
from app.route.parity import Label, Method, Rollback, Sample, Trial, Verdicts
from app.route.sequential import Rules
from app.trace import Usage

TRIAL = Trial("analysis", "map", Target("up", "cheap"), Target("up", "good"), "abc", Rules(margin=0.1, budget=200))
_CLOCK = itertools.count(1_000)


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    async with opened(database_address) as found:
        yield found


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[Database]:
    database = Database(address)
    await database.start()
    try:
        yield database
    finally:
        await database.close()


def sample(difference: float | None, **more: Any) -> Sample:
    method: Method = "unjudged" if difference is None else "judge"
    return replace(Sample(uuid.uuid4().hex, "req_1", next(_CLOCK), difference, method), **more)


async def add(database: Database, *differences: float | None, trial: Trial = TRIAL) -> list[str]:
    """Write samples down; return the states that came about."""
    found = [await parity.add(database, trial, sample(each), roll_back=True) for each in differences]
    return [each.state for each in found if each is not None]


async def test_a_breach_is_decided_once_and_stays_until_it_is_armed_again(database: Database) -> None:
    assert await parity.rollbacks(database) == frozenset()
    assert await add(database, *[-1.0] * 12) == ["breached"]
    assert await parity.rollbacks(database) == {Rollback("analysis", TRIAL.target, TRIAL.reference)}
    assert await add(database, *[1.0] * 30) == []
    (standing,) = await parity.standings(database)
    assert (standing.state, standing.rolled_back, standing.round) == ("breached", True, 0)
    (ended,) = await parity.rearm(database, "analysis", "anna")
    assert ended.trial == TRIAL
    assert await parity.rollbacks(database) == frozenset()
    assert await add(database, 0.0) == []
    (again,) = await parity.standings(database)
    assert (again.state, again.round, dict(again.counts)) == ("learning", 1, {0: 1})
    assert [(each["event"], each["who"]) for each in await parity.events(database)] == [
        ("rearmed", "anna"),
        ("breached", "sluice"),
    ]


async def test_ties_certify_and_a_certified_model_can_still_breach(database: Database) -> None:
    assert await add(database, *[0.0] * 90) == ["certified"]
    assert await parity.rearm(database, "analysis", "anna") == []
    assert await add(database, *[-1.0] * 60) == ["breached"]
    told = (await parity.events(database))[0]["told"]
    assert "up/cheap against up/good, task map: breached" in told
    assert "the role is set back" in told


async def test_a_spent_budget_is_inconclusive(database: Database) -> None:
    assert await add(database, *([1.0, -1.0, -1.0, 1.0] * 50)) == ["inconclusive"]


async def test_a_change_of_anything_is_a_new_test(database: Database) -> None:
    others = [
        replace(TRIAL, prompt_hash="def"),
        replace(TRIAL, task=""),
        replace(TRIAL, target=Target("up", "cheaper")),
        replace(TRIAL, reference=Target("up", "better")),
        replace(TRIAL, rules=replace(TRIAL.rules, margin=0.05)),
    ]
    for each in (TRIAL, *others):
        await add(database, -1.0, trial=each)
    found = await parity.standings(database)
    assert {each.trial for each in found} == {TRIAL, *others}
    assert all(dict(each.counts) == {-1000: 1} for each in found)


async def test_hosts_write_at_once_and_no_sample_is_lost(database_address: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(opened(database_address)) for _ in range(3)]
        states = await asyncio.gather(*(add(host, *[-1.0] * 12) for host in hosts))
        (standing,) = await parity.standings(hosts[0])
        assert dict(standing.counts) == {-1000: 36}
        assert [each for host in states for each in host] == ["breached"], "one host decides it, once"
        assert len(await parity.events(hosts[0])) == 1
    async with opened(database_address) as again:
        (standing,) = await parity.standings(again)
        assert (standing.state, dict(standing.counts)) == ("breached", {-1000: 36})


async def test_a_day_never_costs_more_than_its_limit(database_address: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(opened(database_address)) for _ in range(3)]
        limit, each = Decimal("0.10"), Decimal("0.03")
        granted = await asyncio.gather(*(parity.reserve(host, "2030-01-01", each, limit) for host in hosts * 2))
        assert sum(granted) == 3
        assert await parity.spent(hosts[0], "2030-01-01") == Decimal("0.09")
        await parity.settle(hosts[0], "2030-01-01", each, Decimal("0.0100000001"))
        assert await parity.spent(hosts[0], "2030-01-01") == Decimal("0.0700000001")
        assert await parity.reserve(hosts[0], "2030-01-01", Decimal("0.0299999999"), limit)
        assert not await parity.reserve(hosts[0], "2030-01-01", Decimal("0.000000001"), limit)
        assert not await parity.reserve(hosts[0], "2030-01-02", Decimal("0.2"), limit)
        assert await parity.reserve(hosts[0], "2030-01-02", each, limit), "the next day has its own"


async def test_what_was_written_comes_back(database: Database) -> None:
    said = Verdicts(1, -1, 1)
    usages: dict[str, Any] = {
        "usage": Usage(10, 20),
        "shadow_usage": Usage(10, 40),
        "shadow_usd": Decimal("0.002"),
        "verdicts": said,
    }
    await parity.add(database, TRIAL, sample(0.0, label=Label("chat", 3, "v1", "{}"), **usages), roll_back=True)
    await parity.add(database, TRIAL, sample(None), roll_back=True)
    (standing,) = await parity.standings(database)
    assert standing.judged == ((said, 1),)
    assert (standing.unscored, dict(standing.counts), standing.reading().samples) == (1, {0: 1}, 1)
