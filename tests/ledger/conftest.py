"""Databases: SQLite files and a real PostgreSQL, which starts once a session and gives each test a database."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped]
import pytest

from app.ledger.db import address
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


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """DATABASE_URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'db' / 'sluice.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"test{next(_numbers)}"
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return server.url.replace("/postgres", f"/{name}")


@pytest.fixture
def database_address(database_url: str) -> str:
    found = address(database_url, "")
    assert found is not None
    return found
