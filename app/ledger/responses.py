"""Responses that callers had stored: kept for a while, for ``previous_response_id``, each for its tenant alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from app.ledger.connection import Connection
    from app.ledger.db import Database

Json = dict[str, Any]
_MOST_BEFORE = 500
"""Responses that one conversation may follow back; no window takes more turns."""
_CLEAN_EVERY_S = 3600.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One response.

    Attributes:
        input: the items that the caller sent with it.
        previous_id: the response that it followed.
    """

    response: Json
    input: list[Json]
    previous_id: str | None


class ResponseStore:
    """Keeps responses in the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cleaned = float("-inf")

    async def keep(self, tenant: str, given: list[Json], response: Json, keep_days: float) -> None:
        """Keep a response with the items that were sent for it; from time to time forget what is older.

        Ids are the backends' own: where one comes again, the newest counts.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        from app.ledger.tables.responses import response_items, responses

        row = {
            "id": response["id"],
            "tenant": tenant,
            "at_ms": int(time.time() * 1000),
            "previous_id": response.get("previous_response_id"),
            "input": orjson.dumps(given).decode(),
            "response": orjson.dumps(response).decode(),
        }
        items = [
            {"id": item["id"], "tenant": tenant, "response_id": response["id"], "item": orjson.dumps(item).decode()}
            for item in response["output"]
            if item.get("id")
        ]
        async with self._database.begin() as connection:
            await connection.execute(
                responses.delete().where(responses.c.id == row["id"], responses.c.tenant == tenant)
            )
            await connection.execute(responses.insert(), row)
            known = response_items.c.id.in_([item["id"] for item in items])
            await connection.execute(response_items.delete().where(known, response_items.c.tenant == tenant))
            if items:
                await connection.execute(response_items.insert(), items)
            await self._clean(connection, keep_days)

    async def _clean(self, connection: Connection, keep_days: float) -> None:
        from sqlalchemy import select

        from app.ledger.tables.responses import response_items, responses

        if time.monotonic() - self._cleaned < _CLEAN_EVERY_S:
            return
        self._cleaned = time.monotonic()
        old = responses.c.at_ms < int(time.time() * 1000 - keep_days * _DAY_MS)
        gone = select(responses.c.id).where(old)
        await connection.execute(response_items.delete().where(response_items.c.response_id.in_(gone)))
        await connection.execute(responses.delete().where(old))

    async def find(self, tenant: str, response_id: str) -> Stored | None:
        """Return a response of a tenant.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        async with self._database.connect() as connection:
            return await _find(connection, tenant, response_id)

    async def before(self, tenant: str, response_id: str) -> list[Json] | None:
        """Return the items of a response and of all that it followed, oldest first; None where there is no such one.

        What came before a response that is gone by now is gone with it.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        items: list[Json] = []
        found = None
        async with self._database.connect() as connection:
            following: str | None = response_id
            for _ in range(_MOST_BEFORE):
                stored = await _find(connection, tenant, following) if following else None
                if stored is None:
                    break
                found = stored
                items[:0] = [*stored.input, *stored.response["output"]]
                following = stored.previous_id
        return None if found is None else items

    async def item(self, tenant: str, item_id: str) -> Json | None:
        """Return an item of a response of a tenant.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        from sqlalchemy import select

        from app.ledger.tables.responses import response_items as table

        query = select(table.c.item).where(table.c.id == item_id, table.c.tenant == tenant)
        async with self._database.connect() as connection:
            told = (await connection.execute(query)).scalar_one_or_none()
        found: Json | None = None if told is None else orjson.loads(told)
        return found

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response of a tenant; say whether there was one.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        from app.ledger.tables.responses import response_items, responses

        mine = responses.delete().where(responses.c.id == response_id, responses.c.tenant == tenant)
        items = response_items.delete().where(
            response_items.c.response_id == response_id, response_items.c.tenant == tenant
        )
        async with self._database.begin() as connection:
            gone = (await connection.execute(mine)).rowcount
            await connection.execute(items)
        return bool(gone)


async def _find(connection: Connection, tenant: str, response_id: str) -> Stored | None:
    from sqlalchemy import select

    from app.ledger.tables.responses import responses as table

    query = select(table).where(table.c.id == response_id, table.c.tenant == tenant)
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        return None
    return Stored(orjson.loads(row["response"]), orjson.loads(row["input"]), row["previous_id"])
