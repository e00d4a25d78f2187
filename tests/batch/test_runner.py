"""Who works on batches leaves when it is told to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.batch.runner import Runner
from app.ledger.db import Database
from tests.ledger import ready

if TYPE_CHECKING:
    from pathlib import Path


async def _nowhere(*_: Any) -> None:
    raise AssertionError("there is no batch")


async def test_it_ends_though_a_batch_is_over_at_the_same_moment(tmp_path: Path) -> None:
    ready.copy(tmp_path / "sluice.db")
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'sluice.db'}")
    await database.start()
    runner = Runner(_nowhere, database, str(tmp_path), 1, lambda: False)
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(20):
        while not runner._wake._waiters:  # noqa: ASYNC110 - nobody is told that it waits
            await asyncio.sleep(0.01)
    runner.wake()
    working.cancel()
    await asyncio.wait({working}, timeout=20)
    assert working.cancelled()
    await database.close()
