from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import CallerError
from app.ledger.db import Database
from app.ledger.key_store import PREFIX, KeyStore, digest_of
from app.ledger.key_terms import NewKey, read_new_key, shown
from app.ledger.keys import Keys
from app.ledger.periods import next_day, next_month, periods
from tests.guard.clock import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    made = Database(database_address)
    await made.start()
    yield made
    await made.close()


async def test_a_key_is_shown_once_and_kept_as_a_hash(database: Database) -> None:
    store = KeyStore(database)
    key, stored = await store.create(NewKey(name="team a", models=("groq/*",), rpm=5, budget_day_usd=Decimal("1.5")))
    assert key.startswith(PREFIX)
    assert len(key) > 50
    assert stored.digests == ((digest_of(key.encode()), None),)
    terms = stored.terms
    assert (terms.name, terms.tenant, terms.models) == ("team a", "team a", ("groq/*",))
    assert (terms.rpm, terms.tpm, terms.day_usd, terms.month_usd) == (5, None, Decimal("1.5"), None)
    assert (terms.limited, terms.budgeted) == (True, True)
    told = str(shown((await store.all())[0]))
    assert key not in told
    assert digest_of(key.encode()).hex() not in told


async def test_a_name_is_given_once(database: Database) -> None:
    store = KeyStore(database)
    await store.create(NewKey(name="a"))
    with pytest.raises(CallerError) as caught:
        await store.create(NewKey(name="a"))
    assert (caught.value.status, caught.value.param) == (409, "name")


async def test_workers_follow_what_becomes_of_a_key(database: Database) -> None:
    store, keys = KeyStore(database), Keys(database)
    key, made = await store.create(NewKey(name="a", tenant="t"))
    seen = [keys.any]
    await keys.read(database)
    assert [*seen, keys.any] == [False, True]
    assert keys.find(digest_of(key.encode())) == made.terms
    assert keys.find(digest_of(b"other")) is None
    newer, rotated = await store.rotate("a")
    assert rotated.terms.id == made.terms.id
    await keys.read(database)
    assert keys.find(digest_of(key.encode())) is None
    assert keys.find(digest_of(newer.encode())) == rotated.terms
    await store.revoke(made.terms.id)
    await keys.read(database)
    assert keys.find(digest_of(newer.encode())) is None
    for change in (store.revoke("a"), store.rotate("a"), store.revoke("nobody")):
        with pytest.raises(CallerError) as caught:
            await change
        assert caught.value.status == 404


async def test_a_rotated_key_may_stay_good_for_a_while_and_a_revoked_one_not(database: Database) -> None:
    wall = Clock(time.time())
    store, keys = KeyStore(database, wall), Keys(database, wall)
    old, _ = await store.create(NewKey(name="a"))
    new, _ = await store.rotate("a", grace_s=60)
    await keys.read(database)
    assert keys.find(digest_of(old.encode())) == keys.find(digest_of(new.encode())) is not None
    wall.pass_s(61)
    assert keys.find(digest_of(old.encode())) is None
    newest, _ = await store.rotate("a", grace_s=60)
    await store.revoke("a")
    await keys.read(database)
    assert [keys.find(digest_of(each.encode())) for each in (old, new, newest)] == [None] * 3


async def test_a_key_expires(database: Database) -> None:
    wall = Clock(time.time())
    store, keys = KeyStore(database, wall), Keys(database, wall)
    key, _ = await store.create(NewKey(name="a", expires_days=1))
    await keys.read(database)
    assert keys.find(digest_of(key.encode())) is not None
    wall.pass_s(86_401)
    assert keys.find(digest_of(key.encode())) is None


async def test_thousands_of_keys_are_read_page_by_page_and_found_at_the_same_cost(database: Database) -> None:
    store, few, many = KeyStore(database), Keys(database), Keys(database)
    key, _ = await store.create(NewKey(name="first"))
    await few.read(database)
    from sqlalchemy import insert

    from app.ledger.key_store import _tick
    from app.ledger.tables.keys import api_keys

    async with database.begin() as connection:
        rows = []
        for number in range(1000):
            version = await _tick(connection)
            row: dict[str, Any] = {"id": f"k{number}", "name": f"n{number}", "tenant": "t", "digest": f"{number:064x}"}
            rows.append(row | {"hint": "", "models": "[]", "created_ms": 0, "version": version})
        await connection.execute(insert(api_keys), rows)
    await many.read(database)
    assert many.find(bytes.fromhex(f"{999:064x}")) is not None
    digest = digest_of(key.encode())
    assert few.find(digest) == many.find(digest)
    assert many._digests.keys() > few._digests.keys()


async def test_a_file_without_keys_needs_not_be_opened_to_know_that(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'kept' / 'sluice.db'}")
    assert Keys(database).are_known
    await database.start()
    assert Keys(database).are_known
    await KeyStore(database).create(NewKey(name="a"))
    assert not Keys(database).are_known
    await database.close()


async def test_who_waits_for_the_first_reading_gets_it(database: Database) -> None:
    keys = Keys(database)
    waiting = asyncio.create_task(keys.known())
    await asyncio.sleep(0)
    assert not waiting.done() or keys.are_known
    await keys.read(database)
    assert await waiting


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "rpm": 0}, "rpm"),
        ({"name": "a", "budget_day_usd": "-1"}, "budget_day_usd"),
        ({"name": "a", "budget_day_usd": "much"}, "budget_day_usd"),
        ({"name": "a", "expires_at": "soon"}, "expires_at"),
        ({"name": "a", "expires_at": "2030-01-01T00:00:00Z", "expires_days": 1}, "body"),
        ({"name": "a", "modles": []}, "modles"),
    ],
)
def test_what_is_wrong_with_a_wish_is_told_with_its_field(told: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerError) as caught:
        read_new_key(told)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("at", "day", "month", "tomorrow", "then"),
    [
        ("2026-11-26T23:59:59", "2026-11-26", "2026-11", "2026-11-27", "2026-12-01"),
        ("2026-12-31T00:00:00", "2026-12-31", "2026-12", "2027-01-01", "2027-01-01"),
        ("2028-02-28T12:00:00", "2028-02-28", "2028-02", "2028-02-29", "2028-03-01"),
    ],
)
def test_periods(at: str, day: str, month: str, tomorrow: str, then: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    assert periods(moment) == (day, month)
    assert next_day(moment).isoformat() == f"{tomorrow}T00:00:00+00:00"
    assert next_month(moment).isoformat() == f"{then}T00:00:00+00:00"
