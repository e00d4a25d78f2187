"""Databases: SQLite files and a real PostgreSQL, which starts once a session and gives each test a database."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped]
import pytest

from app.ledger.db import address
from tests.ledger import ready
from tests.ledger.postgres import PostgresServer

if TYPE_CHECKING:
    from pathlib import Path

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def tables(postgres: PostgresServer) -> str:
    """Name of a PostgreSQL database whose tables are there, to be copied."""
    with ThreadPoolExecutor(1) as elsewhere:  # the test that asks first has an event loop
        elsewhere.submit(asyncio.run, _create(postgres, "tables")).result()
    ready.migrate(address(_at(postgres, "tables"), "") or "")
    return "tables"


async def _create(server: PostgresServer, name: str, template: str = "template1") -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    await connection.close()


def _at(server: PostgresServer, name: str) -> str:
    return server.url.replace("/postgres", f"/{name}")


@pytest.fixture(params=["sqlite", "postgres"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """DATABASE_URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'db' / 'sluice.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    await _create(server, name := f"test{next(_numbers)}")
    return _at(server, name)


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """DATABASE_URL of a database without rows."""
    if request.param == "sqlite":
        ready.copy(tmp_path / "sluice.db")
        return f"sqlite:///{tmp_path / 'sluice.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    await _create(server, name := f"test{next(_numbers)}", request.getfixturevalue("tables"))
    return _at(server, name)


@pytest.fixture
def empty_address(empty_url: str) -> str:
    found = address(empty_url, "")
    assert found is not None
    return found


@pytest.fixture
def database_address(database_url: str) -> str:
    found = address(database_url, "")
    assert found is not None
    return found
