"""The ledger's sums, recomputed by other means: ten thousand random calls, to the token and to the pico-dollar."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from app.call import Plan, Purpose, Target
from app.cli.commands import cli
from app.cli.savings import _table
from app.ledger.bill import make_bill
from app.ledger.db import Database, address
from app.ledger.prices import Prices, prices_of
from app.ledger.savings import Asked, By, savings
from app.ledger.tables.parity import shadow_samples
from app.ledger.writer import Ledger
from app.route.lengths import length_ratio
from app.settings import Live
from app.telemetry.money import LedgerMetrics
from app.trace import Attempt, Record, Trace, Usage
from tests.conftest import Start
from tests.upstream import Upstream

FILE = """
a/cheap: {input: 0.05, output: 0.08, cached: 0.0125}
a/dear: {input: 1.25, output: 10, cached: 0.125, reasoning: 12, above: {2000: {input: 2.5, output: 15}}}
a/polish: {input: 0.59, output: 0.79, request: 0.0001}
a/base: {input: 3, output: 15, cached: 0.3, cache_write: 3.75}
"""
RATES: dict[
    str, tuple[str, ...]
] = {  # input, output, cached, cache write, reasoning, per request; by hand from the above
    "cheap": ("0.05", "0.08", "0.0125", "0.05", "0.08", "0"),
    "dear": ("1.25", "10", "0.125", "1.25", "12", "0"),
    "dear+": ("2.5", "15", "0.125", "2.5", "12", "0"),
    "polish": ("0.59", "0.79", "0.59", "0.59", "0.79", "0.0001"),
    "base": ("3", "15", "0.3", "3.75", "15", "0"),
}
BASE = Target("a", "base")
CALLS = 10_000


def by_hand(model: str, usage: Usage) -> Fraction | None:
    """What an attempt costs, in exact fractions, by other means than app.route.price."""
    if usage.cost_usd is not None:
        return Fraction(repr(usage.cost_usd))
    if model == "unknown":
        return None
    name = "dear+" if model == "dear" and usage.prompt > 2000 else model
    asked, answered, cached, written, thought, request = (Fraction(rate) for rate in RATES[name])
    millionths = [
        asked * (usage.prompt - usage.cached - usage.cache_write),
        cached * usage.cached,
        written * usage.cache_write,
        answered * (usage.completion - usage.reasoning),
        thought * usage.reasoning,
    ]
    return sum(millionths, Fraction(0)) / 10**6 + request


@dataclass
class Random:
    """Makes calls as they happen: retries, polish, abandoned streams, answers from memory, unpriced targets."""

    rng: random.Random

    def usage(self) -> Usage:
        prompt, completion = self.rng.randrange(1, 4000), self.rng.randrange(800)
        cost = self.rng.choice([None] * 9 + [self.rng.random() / 100])
        return Usage(
            prompt,
            completion,
            self.rng.randrange(prompt // 2 + 1),
            self.rng.randrange(completion + 1),
            cost_usd=cost,
            cache_write=self.rng.randrange(prompt // 4 + 1),
        )

    def attempt(self, result: str, usage: Usage | None, purpose: Purpose = "answer", model: str = "") -> Attempt:
        model = model or self.rng.choice(["cheap", "cheap", "dear", "dear"] + ["unknown"] * (self.rng.random() < 0.05))
        return Attempt(Target("a", model), result, self.rng.random() * 1000, usage, purpose=purpose)

    def trace(self) -> tuple[Trace, Usage | None, str]:
        trace = Trace(plan=Plan((BASE,)))
        lost = self.rng.choice([0, 0, 0, 1, 2])
        trace.attempts += [
            self.attempt(self.rng.choice(["timeout", "cut", "server_error"]), self.rng.choice([None, self.usage()]))
            for _ in range(lost)
        ]
        what = self.rng.choice(["whole", "whole", "polished", "memory", "abandoned", "failed"])
        usage = self.usage()
        if what == "memory":
            trace.attempts.clear()
            trace.cache = "hit"
        elif what == "failed":
            return trace, None, what
        elif what == "polished":
            trace.attempts.append(self.attempt("ok", self.usage(), "draft"))
            trace.attempts.append(self.attempt("ok", usage, "polish", "polish"))
            trace.polished = "yes"
        else:
            trace.attempts.append(self.attempt("ok" if what == "whole" else "abandoned", usage))
        return trace, usage, what


@pytest.fixture
async def prices(tmp_path: Path) -> Prices:
    (tmp_path / "prices.yaml").write_text(FILE)
    (tmp_path / ".env").write_text(
        f"BACKENDS__A__BASE_URL=https://llm.example.com/v1\nPRICES_FILE={tmp_path}/prices.yaml\nBASELINE_MODEL=a/base\n"
    )
    return await prices_of(Live(tmp_path / ".env"))


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    found = Database(database_address)
    await found.start()
    yield found
    await found.close()


def make(trace: Trace, usage: Usage | None, prices: Prices, **more: Any) -> Record:
    bill = make_bill(trace, usage, prices, BASE)
    known: dict[str, Any] = {
        "request_id": "r", "endpoint": "chat", "tenant": "t", "stream": False, "outcome": "ok", "status": 200,
        "target": BASE, "role": None, "verdict": None, "attempts": bill.attempts, "usage": usage, "stages_ms": {},
        "total_ms": 1.0, "backend_ms": 1.0, "cost_usd": bill.cost_usd, "baseline": bill.baseline,
        "baseline_usd": bill.baseline_usd, "saved_usd": bill.saved_usd, "cache": trace.cache,
    }  # fmt: skip
    return Record(**known | more)


async def test_ten_thousand_random_calls_add_up_to_what_a_recomputation_says(
    prices: Prices, database: Database, tmp_path: Path
) -> None:
    rng = random.Random(8)
    maker = Random(rng)
    ledger = Ledger(database, tmp_path / "spill", 1 << 30, LedgerMetrics(CollectorRegistry()))
    cost = baseline = saved = Fraction(0)
    unpriced, tokens = 0, Counter[str]()
    for _ in range(CALLS):
        trace, usage, _what = maker.trace()
        ledger.observe(make(trace, usage, prices, tenant=rng.choice(["one", "two"])))
        parts = [by_hand(each.target.model, each.usage) for each in trace.attempts if each.usage is not None]
        known = [part for part in parts if part is not None]
        draft = next((each.usage for each in trace.attempts if each.usage), None) if trace.polished else usage
        asked = draft or usage
        at_base = Fraction(0)
        if usage is not None and asked is not None:
            same = Usage(asked.prompt, usage.completion, asked.cached, usage.reasoning, cache_write=asked.cache_write)
            at_base = by_hand("base", same) or at_base
            tokens.update(prompt=usage.prompt, completion=usage.completion, cached=usage.cached)
        for each in trace.attempts:
            if each.usage is not None:
                tokens.update(attempts=each.usage.prompt + each.usage.completion)
        if len(known) < len(parts):
            unpriced += 1
            continue
        cost += sum(known)
        baseline += at_base
        saved += at_base - sum(known)
    await ledger.flush(120)
    now = int(time.time() * 1000)
    told = await savings(database, Asked("tenant"), prices, now)
    assert told["calls"] == CALLS
    assert told["unpriced_calls"] == unpriced > 50
    for name, wanted in (("cost_usd", cost), ("baseline_usd", baseline), ("saved_usd", saved)):
        assert told[name] == pytest.approx(float(wanted), rel=1e-12, abs=1e-8)
        assert abs(Fraction(await sum_of(database, name)) - wanted) <= Fraction(CALLS, 10**12)  # a pico-dollar a row
    assert await token_sums(database) == dict(tokens)
    assert sum(each["calls"] for each in told["by"]) == CALLS
    mine = await savings(database, Asked("target", tenant="one"), prices, now)
    assert mine["calls"] == next(each["calls"] for each in told["by"] if each["name"] == "one") < CALLS
    await ledger.close()


async def sum_of(database: Database, name: str) -> Decimal:
    from sqlalchemy import func, select

    from app.ledger.tables.calls import calls

    wanted = select(func.sum(calls.c[name])).where(calls.c.saved_usd.is_not(None))
    async with database.connect() as connection:
        found: Decimal = (await connection.execute(wanted)).scalar_one()
    return found


async def token_sums(database: Database) -> dict[str, int]:
    from sqlalchemy import func, select

    from app.ledger.tables.calls import attempts, calls

    async with database.connect() as connection:
        names = ("prompt", "completion", "cached")
        sums = (await connection.execute(select(*[func.sum(calls.c[f"{name}_tokens"]) for name in names]))).one()
        used = select(func.sum(attempts.c.prompt_tokens + attempts.c.completion_tokens))
        tried = (await connection.execute(used)).scalar_one()
    return {name: int(each) for name, each in zip(names, sums, strict=True)} | {"attempts": int(tried)}


@pytest.mark.parametrize("by", ["target", "tenant", "task", "day"])
async def test_groups(by: By, prices: Prices, database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database, tmp_path / "spill", 1 << 30, LedgerMetrics(CollectorRegistry()))
    trace = Trace(attempts=[Attempt(Target("a", "cheap"), "ok", 1.0, Usage(100, 10))])
    for task in ("map", "map", None):
        ledger.observe(make(trace, Usage(100, 10), prices, task=task))
    await ledger.flush(10)
    told = await savings(database, Asked(by), prices, int(time.time() * 1000))
    names = {each["name"]: each["calls"] for each in told["by"]}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert names == {"target": {"a/base": 3}, "tenant": {"t": 3}, "task": {"map": 2, None: 1}, "day": {day: 3}}[by]
    assert told["per_year"]["saved_usd"] == pytest.approx(told["saved_usd"] * 365.25)
    assert (await savings(database, Asked(by, days=1), prices, int((time.time() + 200_000) * 1000)))["calls"] == 0
    await ledger.close()


async def test_a_call_that_cost_more_than_its_baseline_is_shown_so(prices: Prices, database: Database) -> None:
    trace = Trace(attempts=[Attempt(Target("a", "cheap"), "ok", 1.0, Usage(1, 1, cost_usd=0.5))])
    record = make(trace, Usage(1, 1, cost_usd=0.5), prices)
    assert record.saved_usd == Decimal("0.000018") - Decimal("0.5")


def shadow(number: int) -> dict[str, Any]:
    """Return a sample whose reference answered about twice as long."""
    names = dict.fromkeys(("test_id", "request_id", "role", "task", "target", "reference", "method"), "x")
    usd = {"shadow_usd": Decimal("0.0002"), "judge_usd": Decimal("0.0001")}
    lengths = {"completion_tokens": 100, "shadow_completion_tokens": 200 + (number % 2) * 20 - 10}
    return {**names, **usd, **lengths, "id": str(number), "at_ms": number}


async def test_shadow_samples_give_the_interval(prices: Prices, database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database, tmp_path / "spill", 1 << 30, LedgerMetrics(CollectorRegistry()))
    trace = Trace(attempts=[Attempt(Target("a", "cheap"), "ok", 1.0, Usage(1000, 1000))])
    ledger.observe(make(trace, Usage(1000, 1000), prices))
    await ledger.flush(10)
    now = int(time.time() * 1000)
    before = await savings(database, Asked(), prices, now)
    assert before["interval_usd"] is None
    assert "assumed" in before["assumption"]
    async with database.begin() as connection:
        await connection.execute(shadow_samples.insert(), [shadow(number) for number in range(40)])
    told = await savings(database, Asked(), prices, now)
    low, high = told["interval_usd"]
    assert low < told["saved_usd"] + 0.015 < high  # the baseline's 1,000 answered tokens, twice
    assert "40 shadow samples" in told["assumption"]
    assert told["parity_usd"] == pytest.approx(40 * 0.0003)
    assert told["saved_usd"] == pytest.approx(before["saved_usd"] - 40 * 0.0003), "the proof is paid for too"
    assert told["cost_usd"] == pytest.approx(before["cost_usd"] + 40 * 0.0003)
    shown = _table(told, "target").splitlines()
    assert shown[2].split() == ["parity", *("0.0120", "USD", "0.0000", "USD", "-0.0120", "USD")]
    assert any("taken off what was saved" in line for line in shown)
    assert "parity" not in _table(before, "target")
    await ledger.close()


def test_the_ratio_of_lengths() -> None:
    assert length_ratio([(10, 20)] * 19) is None
    assert length_ratio([(0, 0)] * 50) is None
    exact = length_ratio([(10, 20)] * 50)
    assert exact == (2.0, 2.0, 2.0, 50)
    rng = random.Random(3)
    inside = 0
    for _ in range(400):
        pairs = [(mine := rng.randrange(50, 150), int(mine * rng.gauss(1.5, 0.3))) for _ in range(60)]
        found = length_ratio(pairs)
        assert found is not None
        inside += found.low <= 1.495 <= found.high
    assert 0.91 <= inside / 400 <= 0.99  # a 95 % interval holds the truth about that often


async def test_the_endpoint_shows_a_tenant_its_own_only(tmp_path: Path, start: Start, up: Upstream) -> None:
    text = (
        f"DATA_DIR={tmp_path}/d\nMODEL_LARGE=up/large\nAPI_KEYS=one-key-of-ours,two-key-of-ours\nADMIN_KEY=boss-key\n"
    )
    async with start(text, up=up) as sluice:
        for key, calls in (("one-key-of-ours", 1), ("two-key-of-ours", 2)):
            for _ in range(calls):
                told = await sluice.chat("large", headers={"authorization": f"Bearer {key}"})
                assert told.status_code == 200
        seen = {}
        for key in ("one-key-of-ours", "two-key-of-ours", "boss-key"):
            seen[key] = await calls_seen(sluice, key, {"boss-key": 3, "two-key-of-ours": 2}.get(key, 1))
        assert seen == {"one-key-of-ours": 1, "two-key-of-ours": 2, "boss-key": 3}
        refused = await sluice.client.get("/v1/savings", headers={"authorization": "Bearer wrong"})
        assert refused.status_code == 401


async def calls_seen(sluice: Any, key: str, wanted: int) -> int:
    """Return the calls that a key is shown, once they are in the ledger."""
    import asyncio

    async with asyncio.timeout(20):
        while True:
            told = await sluice.client.get("/v1/savings?by=day", headers={"authorization": f"Bearer {key}"})
            if told.status_code == 200 and told.json()["calls"] >= wanted:
                found: int = told.json()["calls"]
                return found
            await asyncio.sleep(0.05)


def test_the_command_prints_a_table_csv_and_json(tmp_path: Path) -> None:
    import asyncio

    env = tmp_path / ".env"
    env.write_text(f"DATA_DIR={tmp_path}/d\nBASELINE_MODEL=groq/llama-3.3-70b-versatile\n")

    async def fill() -> None:
        found = address("", f"{tmp_path}/d")
        assert found is not None
        database = Database(found)
        await database.start()
        ledger = Ledger(database, tmp_path / "d" / "spill", 1 << 30, LedgerMetrics(CollectorRegistry()))
        known = await prices_of(Live(env))
        trace = Trace(attempts=[Attempt(Target("ollama", "m"), "ok", 1.0, Usage(1_000_000, 0))])
        ledger.observe(make(trace, Usage(1_000_000, 0), known, baseline_usd=Decimal("0.59"), saved_usd=Decimal("0.59")))
        await ledger.flush(10)
        await ledger.close()
        await database.close()

    asyncio.run(fill())
    run = CliRunner().invoke
    table = run(cli, ["savings", "--env-file", str(env)])
    assert table.exit_code == 0, table.output
    assert "0.5900 USD" in table.stdout
    assert "per year" in table.stdout
    assert "Baseline: groq/llama-3.3-70b-versatile." in table.stdout
    csv = run(cli, ["savings", "--env-file", str(env), "--csv", "--by", "tenant"]).stdout.splitlines()
    assert csv == ["name,calls,unpriced_calls,cost_usd,baseline_usd,saved_usd", "t,1,0,0.0,0.59,0.59"]
    told = run(cli, ["savings", "--env-file", str(env), "--json", "--days", "7"]).stdout
    assert '"saved_usd": 0.59' in told
    assert run(cli, ["savings", "--env-file", str(env), "--by", "moon"]).exit_code == 2
    env.write_text("DATABASE_URL=off\n")
    assert run(cli, ["savings", "--env-file", str(env)]).exit_code == 1
