"""Rows of files and batches, and the leases on them, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.ledger.batches import Batch, BatchStore
from app.ledger.db import Database
from app.ledger.files import FileStore, StoredFile

_BATCH = Batch("batch_1", "t", "/v1/x", "file-in", "24h", created_at=100, expires_at=200)
_FILE = StoredFile("file-1", "t", "a.jsonl", "batch", 3, created_at=100, expires_at=200)


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    database = Database(database_address)
    await database.start()
    yield database
    await database.close()


async def test_files_are_their_tenants(database: Database) -> None:
    store = FileStore(database)
    for number in range(5):
        await store.add(replace(_FILE, id=f"file-{number}", created_at=100 + number // 2))
    await store.add(replace(_FILE, id="file-other", tenant="other"))
    assert await store.get("t", "file-other") is None
    assert await store.get("other", "file-other") is not None
    newest = await store.page("t", purpose=None, after=None, limit=3)
    assert [each.id for each in newest] == ["file-4", "file-3", "file-2"]
    rest = await store.page("t", purpose="batch", after="file-2", limit=9)
    assert [each.id for each in rest] == ["file-1", "file-0"]
    oldest = await store.page("t", purpose=None, after="file-1", limit=9, newest_first=False)
    assert [each.id for each in oldest] == ["file-2", "file-3", "file-4"]
    assert await store.page("t", purpose="vision", after=None, limit=9) == []
    assert (await store.delete("t", "file-other"), await store.delete("other", "file-other")) == (False, True)


async def test_files_whose_time_is_over_are_forgotten_unless_a_batch_reads_them(database: Database) -> None:
    files, batches = FileStore(database), BatchStore(database)
    for name, until in (("file-in", 150), ("file-old", 150), ("file-new", 300), ("file-ever", None)):
        await files.add(replace(_FILE, id=name, expires_at=until))
    await batches.add(_BATCH)
    assert await files.forget_expired(200) == ["file-old"]
    assert await files.known(["file-in", "file-old", "file-new", "x"]) == {"file-in", "file-new"}
    assert (await batches.reads("file-in"), await batches.reads("file-new")) == ("batch_1", None)


async def test_one_of_many_gets_the_lease(database: Database) -> None:
    store = BatchStore(database)
    await store.add(_BATCH)
    found = (await store.active())[0]
    tries = [store.lease(found, f"p{n}-1", 1000, 2000, owner_is_dead=False) for n in range(8)]
    assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]
    held = (await store.active())[0]
    assert not await store.lease(held, "late", 1999, 9000, owner_is_dead=False)
    assert await store.lease(held, "dead", 1999, 2500, owner_is_dead=True)
    assert not await store.lease(held, "who thinks the first owner has it", 2000, 9000, owner_is_dead=True)
    assert await store.lease(held, "after its end", 2501, 9000, owner_is_dead=False)


async def test_who_lost_the_lease_changes_nothing(database: Database) -> None:
    store, files = BatchStore(database), FileStore(database)
    await store.add(_BATCH)
    await store.lease(_BATCH, "a", 0, 10, owner_is_dead=False)
    await store.lease(_BATCH, "b", 11, 20, owner_is_dead=False)
    assert await store.change("batch_1", "a", add=[_FILE], status="completed") is None
    assert await store.change("batch_1", "b", only="validating", status="in_progress") == "in_progress"
    assert await store.change("batch_1", "b", only="validating", status="failed") == "in_progress"
    assert await files.get("t", _FILE.id) is None
    done = await store.change("batch_1", "b", add=[_FILE], status="completed", lease_owner=None, completed=3)
    assert done == "completed"
    assert await files.get("t", _FILE.id) == _FILE
    batch = await store.get("t", "batch_1")
    assert batch is not None
    assert (batch.status, batch.completed, batch.lease_owner) == ("completed", 3, None)
    assert await store.active() == []


async def test_only_what_is_under_way_is_cancelled_and_only_by_its_tenant(database: Database) -> None:
    store = BatchStore(database)
    await store.add(_BATCH)
    assert not await store.cancel("other", "batch_1", 5)
    assert await store.cancel("t", "batch_1", 5)
    assert not await store.cancel("t", "batch_1", 6)
    batch = await store.get("t", "batch_1")
    assert batch is not None
    assert (batch.status, batch.cancelling_at) == ("cancelling", 5)
    await store.add(replace(_BATCH, id="batch_2", created_at=101))
    assert [each.id for each in await store.page("t", None, 9)] == ["batch_2", "batch_1"]
    assert [each.id for each in await store.page("t", "batch_2", 9)] == ["batch_1"]
    assert await store.page("other", None, 9) == []
