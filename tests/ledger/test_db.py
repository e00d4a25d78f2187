from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, func, insert, inspect, select
from sqlalchemy.exc import IntegrityError

from app.ledger import db
from app.ledger.db import Database, DatabaseUnavailableError, address
from app.ledger.tables.calls import attempts

if TYPE_CHECKING:
    from tests.conftest import Running, Start
    from tests.ledger.postgres import PostgresServer


def attempt(number: int, cost: Decimal | None) -> dict[str, object]:
    row: dict[str, object] = {"call_id": "c", "number": number, "target": "up/m", "purpose": "answer", "result": "ok"}
    return row | {"sent": True, "duration_ms": 1.0, "cost_usd": cost}


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("", "sqlite+aiosqlite:////d/sluice.db"),
        ("off", None),
        ("sqlite:////d/x.db", "sqlite+aiosqlite:////d/x.db"),
        ("postgres://u:p%40@h:1/d?sslmode=require", "postgresql+asyncpg://u:p%40@h:1/d?ssl=require"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_addresses(url: str, full: str | None) -> None:
    assert address(url, "/d") == full


async def test_money_comes_back_exactly_and_adds_up(database_address: str) -> None:
    database = Database(database_address)
    await database.start()
    costs = [Decimal("0.000000000001"), Decimal("123.456789012345"), Decimal("-0.5"), None]
    async with database.begin() as connection:
        await connection.execute(insert(attempts), [attempt(number, cost) for number, cost in enumerate(costs)])
    async with database.connect() as connection:
        kept = (await connection.execute(select(attempts.c.cost_usd).order_by(attempts.c.number))).scalars().all()
        total = (await connection.execute(select(func.sum(attempts.c.cost_usd)))).scalar_one()
    assert kept == costs
    assert total == sum(cost for cost in costs if cost is not None)
    await database.close()


async def test_what_fails_is_rolled_back_and_a_wrong_statement_is_no_outage(database_address: str) -> None:
    database = Database(database_address)
    await database.start()
    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await connection.execute(insert(attempts), [attempt(1, None), attempt(1, None)])
    assert database.trouble is None
    async with database.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(attempts))).scalar_one() == 0
    await database.close()


async def test_writers_that_read_first_do_not_overwrite_each_other(database_address: str) -> None:
    databases = [Database(database_address) for _ in range(3)]
    await asyncio.gather(*(each.start() for each in databases))  # as workers do, all at once
    async with databases[0].begin() as connection:
        await connection.execute(insert(attempts), [attempt(0, Decimal(0))])

    async def add(database: Database) -> None:
        for _ in range(5):
            async with database.begin() as connection:
                found = select(attempts.c.cost_usd).where(attempts.c.number == 0).with_for_update()
                cost = (await connection.execute(found)).scalar_one()
                changed = attempts.update().where(attempts.c.number == 0).values(cost_usd=cost + 1)
                await connection.execute(changed)

    await asyncio.gather(*(add(each) for each in databases))
    async with databases[0].connect() as connection:
        assert (await connection.execute(select(attempts.c.cost_usd))).scalar_one() == 15
    await asyncio.gather(*(each.close() for each in databases))


async def test_connections_of_tasks_that_are_cancelled_go_back_to_the_pool(database_address: str) -> None:
    database = Database(database_address)
    await database.start()
    holds = asyncio.Event()

    async def hold() -> None:
        async with database.begin() as connection:
            await connection.execute(insert(attempts), [attempt(0, None)])
            holds.set()
            await asyncio.Event().wait()

    for _ in range(3):
        task = asyncio.create_task(hold())
        await holds.wait()
        task.cancel()
        await asyncio.wait({task})
        holds.clear()
    pool: Any = database.engine.pool
    assert pool.checkedout() == 0
    async with database.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(attempts))).scalar_one() == 0
    await database.close()


async def test_the_second_start_finds_the_tables(empty_address: str) -> None:
    for _ in range(2):
        database = Database(empty_address)
        await database.start()
        async with database.connect() as connection:
            assert (await connection.execute(select(func.count()).select_from(attempts))).scalar_one() == 0
        await database.close()


def test_the_newest_revisions_are_those_that_alembic_finds() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(db._MIGRATIONS))
    assert db.newest_revisions() == set(ScriptDirectory.from_config(config).get_heads())


@pytest.mark.parametrize("migrated", [False, True])
async def test_new_tables_and_migrated_ones_are_what_the_tables_say(empty_address: str, migrated: bool) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from app.ledger import tables
    from app.ledger.tables.keys import key_clock

    for module in pkgutil.iter_modules(tables.__path__):
        importlib.import_module(f"{tables.__name__}.{module.name}")
    if migrated:
        await _of_no_revision(empty_address)
    database = Database(empty_address)
    await database.start()

    def look(plain: Connection) -> tuple[Any, list[Any], set[str]]:
        told = inspect(plain)
        keys = {name: told.get_pk_constraint(name)["constrained_columns"] for name in tables.metadata.tables}
        context = MigrationContext.configure(plain, opts={"compare_type": True})
        return keys, compare_metadata(context, tables.metadata), set(context.get_current_heads())

    async with database.connect() as connection:
        keys, found, heads = await connection.run_sync(look)
        clock = (await connection.execute(select(key_clock))).all()
    await database.close()
    assert [each for each in found if not (isinstance(each, list) or "comment" in str(each[0]))] == []
    assert keys == {name: list(table.primary_key.columns.keys()) for name, table in tables.metadata.tables.items()}
    assert (heads, clock) == (db.newest_revisions(), [(1, 0)])


async def _of_no_revision(full: str) -> None:
    """Have a database look as if Alembic had begun with it: all migrations are then run."""
    from app.ledger.connection import begun, dispose

    if full.startswith("sqlite"):
        Path(full.partition(":///")[2]).parent.mkdir()
    engine = db._engine(full)
    async with begun(engine) as connection:
        await connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    await dispose(engine)


async def test_a_postgres_that_is_down_is_unavailable_and_comes_back(postgres: PostgresServer) -> None:
    found = address(postgres.url, "")
    assert found is not None
    database = Database(found)
    await database.start()
    postgres.stop()
    try:
        with pytest.raises(DatabaseUnavailableError):
            async with database.connect() as connection:
                await connection.execute(select(1))
        fresh = Database(found)
        with pytest.raises(DatabaseUnavailableError):
            await fresh.start()
        await fresh.close()
    finally:
        postgres.start()
    async with database.connect() as connection:
        assert (await connection.execute(select(1))).scalar_one() == 1
    assert database.trouble is None
    await database.close()


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = address("", str(tmp_path / "file" / "data"))
    assert found is not None
    database = Database(found)
    with pytest.raises(DatabaseUnavailableError, match=r"NotADirectory|FileExists"):
        await database.start()
    with pytest.raises(DatabaseUnavailableError):
        async with database.begin():
            pass


async def test_the_gateway_opens_it_in_the_background_and_says_so(tmp_path: Path, start: Start) -> None:
    async with start(f"DATA_DIR={tmp_path}/kept\n") as sluice:
        database = sluice.gateway.database
        assert database is not None
        async with asyncio.timeout(20):
            while True:
                if database.trouble is None:
                    break
                await asyncio.sleep(0.02)
        await until(sluice, "ready")
    with contextlib.closing(sqlite3.connect(tmp_path / "kept" / "sluice.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_it_serves_without_and_is_loud_about_it(tmp_path: Path, start: Start) -> None:
    (tmp_path / "kept").write_text("in the way")
    async with start(f"DATA_DIR={tmp_path}/kept\nMODEL_LARGE=ollama/m\n") as sluice:
        await until(sluice, "Exists")
        assert (await sluice.client.get("/health/ready")).json()["status"] == "degraded"
        (tmp_path / "kept").unlink()
        await until(sluice, "ready")


async def until(sluice: Running, told: str) -> None:
    """Wait until readiness says this of the database."""
    async with asyncio.timeout(20):
        while True:
            if told in str((await sluice.client.get("/health/ready")).json()["dependencies"]["database"]):
                return
            await asyncio.sleep(0.02)
