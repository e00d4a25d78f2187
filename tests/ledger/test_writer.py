from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from app.call import Target, Verdict
from app.ledger.db import Database, DatabaseUnavailableError
from app.ledger.rows import ATTEMPTS, CALLS, line_of, make_row, row_of
from app.ledger.spill import Spill, SpillFullError
from app.ledger.tables.calls import attempts, calls
from app.ledger.writer import Ledger
from app.telemetry.money import LedgerMetrics
from app.trace import Attempt, Record, Usage
from tests.conftest import Start
from tests.ledger.postgres import PostgresServer
from tests.ledger.test_db import until
from tests.upstream import Upstream

UP = Target("up", "m")


def record(number: int = 0, **more: Any) -> Record:
    usage = Usage(100, 20, cached=30, reasoning=5, cache_write=7)
    known: dict[str, Any] = {
        "request_id": f"r{number}",
        "endpoint": "chat",
        "tenant": "team",
        "stream": True,
        "outcome": "ok",
        "status": 200,
        "target": UP,
        "role": "code",
        "verdict": Verdict("code", 6, 90),
        "attempts": (
            Attempt(UP, "timeout", 10.0),
            Attempt(UP, "ok", 5.0, usage, purpose="draft", cost_usd=Decimal("0.000123456789"), price="input=1"),
        ),
        "usage": usage,
        "stages_ms": {"answer": 5.0},
        "total_ms": 20.5,
        "backend_ms": 15.0,
        "cost_usd": Decimal("0.000123456789"),
        "baseline": Target("gemini", "pro"),
        "baseline_usd": Decimal("0.0001"),
        "saved_usd": Decimal("-0.000023456789"),
        "faults": ("too_short", "no_code_block"),
    }
    return Record(**known | more)


class Kept:
    """A database, and the ledgers that write into it."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        self.database = Database(address)

    def ledger(self, database: Database | None = None, most: int = 1 << 30) -> Ledger:
        return Ledger(database or self.database, self.folder / "spill", most, LedgerMetrics(CollectorRegistry()))

    async def rows(self, table: Any = calls) -> list[dict[str, Any]]:
        async with self.database.connect() as connection:
            return [dict(each) for each in (await connection.execute(select(table))).mappings()]

    def spilled(self) -> list[Path]:
        return sorted((self.folder / "spill").glob("*.jsonl"))


@pytest.fixture
async def kept(database_address: str, tmp_path: Path) -> AsyncIterator[Kept]:
    found = Kept(database_address, tmp_path)
    await found.database.start()
    yield found
    await found.database.close()


class Away(Database):
    """A database that is away until it is told to be back."""

    back = False

    async def write(self, statements: Iterable[tuple[str, Any]]) -> None:
        if not self.back:
            self.trouble = "it is away"
            raise DatabaseUnavailableError(self.trouble)
        await super().write(statements)


def test_the_rows_have_the_tables_columns() -> None:
    assert [column.name for column in calls.columns] == list(CALLS)
    assert [column.name for column in attempts.columns] == list(ATTEMPTS)


async def test_a_call_and_its_attempts_are_kept_as_they_were(kept: Kept) -> None:
    ledger = kept.ledger()
    ledger.observe(record(1))
    await ledger.flush()
    (call,) = await kept.rows()
    wanted = {
        "request_id": "r1", "tenant": "team", "target": "up/m", "kind": "code", "complexity": 6, "stream": True,
        "prompt_tokens": 100, "cached_tokens": 30, "cache_write_tokens": 7, "completion_tokens": 20,
        "reasoning_tokens": 5, "cost_usd": Decimal("0.000123456789"), "baseline_target": "gemini/pro",
        "saved_usd": Decimal("-0.000023456789"), "faults": "too_short,no_code_block", "prompt": None, "answer": None,
        "stages": '{"answer":5.0}', "estimated": False,
    }  # fmt: skip
    assert {name: call[name] for name in wanted} == wanted
    first, second = sorted(await kept.rows(attempts), key=lambda row: row["number"])
    assert (first["result"], first["purpose"], first["cost_usd"], first["prompt_tokens"]) == (
        "timeout",
        "answer",
        None,
        None,
    )
    assert (second["purpose"], second["cost_usd"], second["price"]) == ("draft", Decimal("0.000123456789"), "input=1")
    assert {first["call_id"], second["call_id"]} == {call["id"]}


async def test_many_calls_in_one_batch(kept: Kept) -> None:
    ledger = kept.ledger()
    for number in range(1234):
        ledger.observe(record(number))
    await ledger.flush(30)
    assert len({row["request_id"] for row in await kept.rows()}) == 1234
    assert len(await kept.rows(attempts)) == 2468


@pytest.mark.parametrize("name", ["x" * 500, "nul\0inside", "lone \ud800 surrogate"])
async def test_names_that_callers_write_break_nothing(name: str, kept: Kept) -> None:
    ledger = kept.ledger()
    ledger.observe(record(target=Target("up", name), attempts=(), task=name))
    await ledger.flush()
    (row,) = await kept.rows()
    assert row["target"].startswith("up/")
    assert len(row["task"]) <= 128


async def test_a_busy_event_loop_does_not_keep_rows_from_the_database(tmp_path: Path) -> None:
    """Each way to another thread and back takes rounds of the loop: of rounds of 25 ms a batch has few, not twenty."""
    kept = Kept(f"sqlite+aiosqlite:///{tmp_path}/x.db", tmp_path)
    await kept.database.start()
    ledger, loop, over = kept.ledger(), asyncio.get_running_loop(), False

    def work() -> None:
        until = time.perf_counter() + 0.025
        while time.perf_counter() < until:
            pass
        if not over:
            loop.call_soon(work)

    for number in range(150):
        ledger.observe(record(number))
    loop.call_soon(work)
    await ledger.flush()
    over = True
    assert ledger.trouble is None
    assert len(await kept.rows()) == 150
    await ledger.close()
    await kept.database.close()


async def test_rows_do_not_pile_up_where_a_round_of_the_event_loop_is_long(tmp_path: Path) -> None:
    """With a fixed number of rows a round, a gateway with hundreds of calls at once would make fewer than it gets."""
    kept = Kept(f"sqlite+aiosqlite:///{tmp_path}/x.db", tmp_path)
    ledger, loop, rounds = kept.ledger(), asyncio.get_running_loop(), 0

    def work() -> None:
        nonlocal rounds
        rounds += 1
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        if rounds < 50:
            loop.call_soon(work)

    for number in range(3000):
        ledger.observe(record(number))
    loop.call_soon(work)
    assert len(await ledger._made()) == 3000
    assert rounds < 50
    rounds = 50


async def test_what_the_database_misses_waits_in_a_file_and_is_counted_once(kept: Kept) -> None:
    away = Away(kept.address)
    await away.start()
    ledger = kept.ledger(away)
    for number in range(5):
        ledger.observe(record(number))
    await ledger.flush()
    assert await kept.rows() == []
    (file,) = kept.spilled()
    assert "rows wait in the spill file" in (ledger.trouble or "")
    twice = file.read_bytes()
    away.back, away.trouble = True, None
    await ledger.flush()
    assert len(await kept.rows()) == 5
    assert ledger.trouble is None
    file.write_bytes(twice)  # as if it had been killed between the commit and the emptying
    again = kept.ledger()
    await ledger.close()
    file.write_bytes(twice)
    again._adopt()
    await again.flush()
    assert len(await kept.rows()) == 5
    assert len(await kept.rows(attempts)) == 10
    await again.close()
    assert kept.spilled() == []
    await away.close()


async def test_a_slow_database_gets_rows_later_and_once(kept: Kept) -> None:
    blocker = Database(kept.address)
    await blocker.start()
    ledger = kept.ledger()
    async with blocker.begin() as connection:
        await connection.execute(calls.delete())
        if not kept.database.sqlite:
            await connection.exec_driver_sql("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
        ledger.observe(record(1))
        await ledger.flush(0.05)
        assert [len(path.read_bytes().splitlines()) for path in kept.spilled()] == [1]
        late = ledger._late
        assert late is not None  # now: it may be done as soon as the other one has ended
    await late
    await ledger.flush()
    assert [row["request_id"] for row in await kept.rows()] == ["r1"]
    assert ledger.trouble is None
    await ledger.close()
    await blocker.close()


async def test_a_row_that_is_refused_does_not_hold_up_the_rest(kept: Kept) -> None:
    ledger = kept.ledger()
    ledger.observe(record(1))
    ledger.observe(record(2, outcome=None))
    ledger.observe(record(3))
    await ledger.flush(5)
    kept_ids = {row["request_id"] for row in await kept.rows()}
    assert {"r1", "r3"} <= kept_ids
    if not kept.database.sqlite:  # there INSERT OR IGNORE takes no notice of it
        assert "1 rows were lost" in (ledger.trouble or "")


async def test_a_full_file_leaves_rows_in_memory_and_says_so(tmp_path: Path) -> None:
    kept = Kept(f"sqlite+aiosqlite:///{tmp_path}/x.db", tmp_path)
    away = Away(kept.address)
    await away.start()
    ledger = kept.ledger(away, most=4000)
    for number in range(50):
        ledger.observe(record(number))
    await ledger.flush()
    assert "the spill file takes nothing" in (ledger.trouble or "")
    away.back, away.trouble = True, None
    await ledger.flush()
    await kept.database.start()
    assert len(await kept.rows()) == 50
    assert ledger.trouble is None
    await ledger.close()
    await away.close()
    await kept.database.close()


def test_a_torn_line_is_left_out_and_another_version_is_read(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "a.jsonl", 1 << 20)
    row = make_row(record(1), "id1", 5)
    spill.append([row])
    spill.close()
    whole = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "b.jsonl").write_bytes(whole + whole[: len(whole) // 2])
    again = Spill(tmp_path / "b.jsonl", 1 << 20)
    assert again.open()
    rows, end = again.next()
    assert rows == [row]
    again.done(end)
    assert again.next() == ([], len(whole) + len(whole) // 2)
    again.close()
    assert row_of(line_of(row).replace(b'"tenant"', b'"unknown_column"')) is not None


def test_two_processes_never_share_a_file(tmp_path: Path) -> None:
    one, two = Spill(tmp_path / "a.jsonl", 1000), Spill(tmp_path / "a.jsonl", 1000)
    assert one.open()
    assert not two.open()
    with pytest.raises(SpillFullError):
        one.append([make_row(record(), "x" * 1000, 1)])
    one.close()


async def test_a_gateways_calls_are_in_its_ledger(tmp_path: Path, start: Start, up: Upstream) -> None:
    (tmp_path / "prices.yaml").write_text("up/large: {input: 1, output: 2}\nup/base: {input: 10, output: 20}\n")
    text = f"DATA_DIR={tmp_path}/d\nMODEL_LARGE=up/large\nBASELINE_MODEL=up/base\nPRICES_FILE={tmp_path}/prices.yaml\n"
    async with start(text, up=up) as sluice:
        await until(sluice, "ready")
        whole = await sluice.chat("large", headers={"x-sluice-performance": "true"})
        usage = whole.json()["usage"]
        cost = (usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1e6
        assert float(whole.headers["x-sluice-cost-usd"]) == pytest.approx(cost)
        assert float(whole.headers["x-sluice-saved-usd"]) == pytest.approx(9 * cost)
        assert whole.json()["performance"]["cost_usd"] == pytest.approx(cost)
        streamed = await sluice.chat("large", stream=True, headers={"x-sluice-performance": "true"})
        assert '"saved_usd":' in streamed.text
        metrics = (await sluice.client.get("/metrics")).text
        assert 'sluice_cost_usd_total{purpose="answer",target="up/large"}' in metrics
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "sluice.db")) as file:
        rows = file.execute("SELECT target, outcome, cost_usd, baseline_usd, saved_usd, prompt FROM calls").fetchall()
        assert file.execute("SELECT count(*) FROM attempts WHERE result = 'ok'").fetchone() == (2,)
    assert len(rows) == 2
    for target, outcome, paid, baseline, saved, prompt in rows:
        assert (target, outcome, prompt) == ("up/large", "ok", None)
        assert baseline == 10 * paid
        assert saved == baseline - paid > 0


async def test_content_is_kept_where_the_operator_says_so(tmp_path: Path, start: Start, up: Upstream) -> None:
    async with start(f"DATA_DIR={tmp_path}/d\nMODEL_LARGE=up/large\nLOG_CONTENT=true\n", up=up) as sluice:
        await until(sluice, "ready")
        answer = (await sluice.chat("large", "the question")).json()["choices"][0]["message"]["content"]
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "sluice.db")) as file:
        ((asked, answered),) = file.execute("SELECT prompt, answer FROM calls").fetchall()
    assert "the question" in asked
    assert answered == answer


async def test_postgres_may_go_and_come_back(postgres: PostgresServer, tmp_path: Path) -> None:
    kept = Kept(postgres.url.replace("postgresql://", "postgresql+asyncpg://"), tmp_path)
    await kept.database.start()
    ledger = kept.ledger()
    before = len(await kept.rows())
    ledger.observe(record(1))
    await ledger.flush(5)
    postgres.stop()
    try:
        ledger.observe(record(2))
        await ledger.flush()
        assert len(kept.spilled()) == 1
    finally:
        postgres.start()
    async with asyncio.timeout(30):
        while True:
            await ledger.flush(5)
            if ledger.trouble is None:
                break
            await asyncio.sleep(0.1)
    assert len(await kept.rows()) == before + 2
    await ledger.close()
    await kept.database.close()
