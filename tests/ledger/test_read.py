"""Reading the ledger for the operator's pages, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from app.ledger.db import Database
from app.ledger.read import Wanted, one, recent, traffic
from app.ledger.tables.calls import attempts, calls

_MINUTE = 60_000
_BASE: dict[str, Any] = {
    "tenant": "anonymous", "endpoint": "chat", "stream": False, "outcome": "ok", "status": 200, "prompt_tokens": 3,
    "cached_tokens": 0, "cache_write_tokens": 0, "completion_tokens": 5, "reasoning_tokens": 0, "estimated": False,
    "total_ms": 100.0, "backend_ms": 90.0, "stages": '{"parse": 10.0, "answer": 90.0}', "faults": "", "rescued": "",
    "prompt": "secret", "answer": "secret",
}  # fmt: skip


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    found = Database(database_address)
    await found.start()
    yield found
    await found.close()


async def _put(database: Database, *rows: dict[str, Any]) -> None:
    names = {name for row in rows for name in row}
    whole = [
        {"id": f"id{i:04}", "request_id": f"req{i}"} | dict.fromkeys(names) | _BASE | row for i, row in enumerate(rows)
    ]
    async with database.begin() as connection:
        await connection.execute(calls.insert(), whole)


async def test_recent_pages_back_without_a_gap_or_a_double(database: Database) -> None:
    await _put(database, *({"at_ms": 1000 + i // 3} for i in range(10)))  # several end in the same millisecond
    seen: list[str] = []
    wanted = Wanted(limit=4)
    for _ in range(3):
        told = await recent(database, wanted)
        seen += [call["id"] for call in told["calls"]]
        wanted = Wanted(limit=4, before=told["next"])
    assert seen == [f"id{i:04}" for i in reversed(range(10))]
    assert told["next"] is None


async def test_recent_filters_and_shows_no_content(database: Database) -> None:
    await _put(
        database,
        {"at_ms": 1, "target": "groq/a", "faults": "too_short,no_code_block", "cost_usd": Decimal("0.0000012")},
        {"at_ms": 2, "target": "groq/b", "outcome": "error", "tenant": "key-1"},
    )
    (found,) = (await recent(database, Wanted(target="groq/a")))["calls"]
    assert (found["faults"], found["stages"]) == (["too_short", "no_code_block"], {"parse": 10.0, "answer": 90.0})
    assert found["cost_usd"] == 0.0000012
    assert "secret" not in str(found)
    assert [each["id"] for each in (await recent(database, Wanted(outcome="error", tenant="key-1")))["calls"]] == [
        "id0001"
    ]
    assert (await recent(database, Wanted(role="code")))["calls"] == []


@pytest.mark.parametrize("before", ["", "x", "x-y", "1.5-a"])
async def test_a_cursor_that_is_none_is_refused(database: Database, before: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await recent(database, Wanted(before=before))


async def test_one_has_its_attempts_in_order_and_the_newest_of_a_name_counts(database: Database) -> None:
    await _put(database, {"at_ms": 1, "request_id": "same"}, {"at_ms": 2, "request_id": "same"})
    tries = [
        {"call_id": "id0001", "number": n, "target": f"groq/{n}", "purpose": "answer", "result": result, "sent": True,
         "duration_ms": 5.0, "cost_usd": None}
        for n, result in ((1, "ok"), (0, "rate_limit"))
    ]  # fmt: skip
    async with database.begin() as connection:
        await connection.execute(attempts.insert(), tries)
    found = await one(database, "same")
    assert found is not None
    assert (found["id"], [each["result"] for each in found["attempts"]]) == ("id0001", ["rate_limit", "ok"])
    assert (await one(database, "id0000") or {})["attempts"] == []
    assert await one(database, "nobody") is None


async def test_traffic_counts_each_call_once_in_its_step(database: Database) -> None:
    await _put(
        database,
        {"at_ms": 0, "target": "a/1"},
        {"at_ms": _MINUTE - 1, "target": "a/1", "outcome": "error", "status": 502},
        {"at_ms": _MINUTE, "target": "b/2", "total_ms": 300.0, "first_token_ms": 40.0},
        {"at_ms": 3 * _MINUTE - 1, "target": None, "outcome": "abandoned"},
        {"at_ms": 3 * _MINUTE, "target": "a/1"},  # after the time
    )
    told = await traffic(database, 0, 3 * _MINUTE, _MINUTE, "target")
    assert told["at_ms"] == [0, _MINUTE, 2 * _MINUTE]
    assert {each["name"]: each["calls"] for each in told["series"]} == {
        "a/1": [2, 0, 0],
        "b/2": [0, 1, 0],
        "none": [0, 0, 1],
    }
    assert told["failed"] == [1, 0, 0]
    total = told["total"]
    assert (total["calls"], total["failed"], total["abandoned"]) == (4, 1, 1)
    assert (total["p50_ms"], total["p95_ms"], total["own_p50_ms"], total["first_token_p50_ms"]) == (300, 300, 210, 40)


async def test_the_smallest_series_are_one(database: Database) -> None:
    rows = [{"at_ms": 1, "role": f"role{i}"} for i in range(12) for _ in range(12 - i)]
    await _put(database, *rows)
    told = await traffic(database, 0, _MINUTE, _MINUTE, "role")
    assert [each["name"] for each in told["series"]] == [*(f"role{i}" for i in range(7)), "other"]
    assert sum(sum(each["calls"]) for each in told["series"]) == len(rows)
