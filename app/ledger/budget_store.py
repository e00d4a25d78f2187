"""Budgets in the database: what was spent in the present periods, and what workers hold for calls under way."""

from __future__ import annotations

import time
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Float, case, cast, delete, func, insert, select, true, type_coerce, update

from app.ledger.periods import periods
from app.ledger.spend import Grant
from app.ledger.tables.keys import api_keys, key_leases, key_spending
from app.ledger.tables.money import PICO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import ColumnElement, Table

    from app.call import KeyTerms
    from app.ledger.connection import Connection
    from app.ledger.db import Database
    from app.ledger.spend import Spend

LEASE_S = 15.0
"""A lease that is not renewed for so long belongs to a worker that is gone. Renewed three times as often."""
_SHARE = 8
"""At most this part of what is left is taken beyond what a call needs, so that workers do not starve each other."""
_CALLS = 8
"""... and at most for this many further calls like it."""


class BudgetStore:
    """The budgets of one database, for one worker.

    What was spent and all leases together never exceed a budget by more than the one reservation that was granted last:
    as long as anything is left, a reservation is granted whole, and nothing once nothing is left.

    Args:
        database: opened.
        holder: this worker's name, unlike any other's.
        wall: seconds since 1970.
    """

    def __init__(self, database: Database, holder: str, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._holder = holder
        self._wall = wall

    async def take(self, key: KeyTerms, held: Decimal, need: Decimal) -> Grant:
        """Lease at least ``need`` beyond ``held``, which is what this worker's calls have reserved or spent unwritten.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        async with self._database.begin() as connection:
            await connection.execute(select(api_keys.c.id).where(api_keys.c.id == key.id).with_for_update())
            day, month = await self._rests(connection, key)
            left = min(each for each in (day, month) if each is not None) - held
            granted = max(need, min(left / _SHARE, need * _CALLS)) if left > 0 else Decimal(0)
            await self._lease(connection, key.id, held + granted)
        return Grant(granted, left, of_month=month is not None and month <= held)

    async def _rests(self, connection: Connection, key: KeyTerms) -> tuple[Decimal | None, Decimal | None]:
        """Return what of the day's and the month's budget was neither spent nor leased by others.

        Read in one statement, so that it is of one moment.
        """
        day, month = periods(self._wall())
        others = (key_leases.c.holder != self._holder) & (key_leases.c.until_ms > self._now_ms())
        leased = _sum(key_leases, key_leases.c.amount_usd, (key_leases.c.key_id == key.id) & others)
        sums = [_spent(key.id, day), _spent(key.id, month), leased]
        day_spent, month_spent, lent = [
            Decimal(int(pico)) / PICO for pico in (await connection.execute(select(*sums))).one()
        ]
        return (
            None if key.day_usd is None else key.day_usd - day_spent - lent,
            None if key.month_usd is None else key.month_usd - month_spent - lent,
        )

    async def _lease(self, connection: Connection, key_id: str, amount: Decimal) -> None:
        mine = (key_leases.c.key_id == key_id) & (key_leases.c.holder == self._holder)
        if amount <= 0:
            await connection.execute(delete(key_leases).where(mine))
            return
        values = {"amount_usd": amount, "until_ms": self._now_ms() + int(LEASE_S * 1000)}
        changed = await connection.execute(update(key_leases).where(mine).values(values))
        if changed.rowcount == 0:
            row = {"key_id": key_id, "holder": self._holder, **values}
            await connection.execute(insert(key_leases).values(row))

    async def renew(self, leases: Mapping[str, Decimal]) -> None:
        """Hold on to leases, each now of this amount; nothing gives it back.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        async with self._database.begin() as connection:
            for key_id, amount in sorted(leases.items()):
                await self._lease(connection, key_id, amount)
            gone = key_leases.c.until_ms < self._now_ms() - int(LEASE_S * 1000)
            await connection.execute(delete(key_leases).where(gone))

    async def count(self, connection: Connection, spends: Iterable[Spend]) -> None:
        """Add to what was spent, and take it off this worker's leases, as part of a transaction."""
        totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        off: dict[str, Decimal] = defaultdict(Decimal)
        for each in spends:
            off[each.key_id] += each.usd
            for period in periods(each.at):
                totals[each.key_id, period] += each.usd
        put = _insert(connection.dialect.name)
        for (key_id, period), usd in sorted(totals.items()):
            added = put(key_spending).values(key_id=key_id, period=period, spent_usd=usd)
            more = {"spent_usd": key_spending.c.spent_usd + added.excluded.spent_usd}
            await connection.execute(added.on_conflict_do_update(index_elements=["key_id", "period"], set_=more))
        for key_id, usd in sorted(off.items()):
            mine = (key_leases.c.key_id == key_id) & (key_leases.c.holder == self._holder)
            covered = case((key_leases.c.amount_usd > usd, key_leases.c.amount_usd - usd), else_=Decimal(0))
            await connection.execute(update(key_leases).where(mine).values(amount_usd=covered))

    async def used(self) -> dict[str, float]:
        """Return the highest share of a budget that is spent, of all keys in use, for the present day and month.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        day, month = periods(self._wall())
        wanted = [self._highest(day, api_keys.c.day_usd), self._highest(month, api_keys.c.month_usd)]
        async with self._database.connect() as connection:
            found = (await connection.execute(select(*wanted))).one()
        return dict(zip(("day", "month"), (float(share or 0) for share in found), strict=True))

    def _highest(self, period: str, budget: ColumnElement[Decimal | None]) -> ColumnElement[float]:
        spent, limit = (type_coerce(each, BigInteger) for each in (key_spending.c.spent_usd, budget))
        in_use = api_keys.c.revoked_ms.is_(None) & func.coalesce(api_keys.c.expires_ms > self._now_ms(), true())
        joined = key_spending.join(api_keys, api_keys.c.id == key_spending.c.key_id)
        shares = select(func.max(cast(spent, Float) / limit)).select_from(joined)
        return shares.where(key_spending.c.period == period, limit > 0, in_use).scalar_subquery()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)


def _insert(dialect: str) -> Any:
    """Return the database's own INSERT, which knows what to do on a conflict; the other's need not be imported."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as found
    else:
        from sqlalchemy.dialects.sqlite import insert as found  # type: ignore[assignment]
    return found


def _spent(key_id: str, period: str) -> ColumnElement[int]:
    of = (key_spending.c.key_id == key_id) & (key_spending.c.period == period)
    return _sum(key_spending, key_spending.c.spent_usd, of)


def _sum(table: Table, column: ColumnElement[Decimal], where: ColumnElement[bool]) -> ColumnElement[int]:
    """Return a sum in whole pico-USD as a column of another statement."""
    total = func.coalesce(func.sum(type_coerce(column, BigInteger)), 0)
    return select(total).select_from(table).where(where).scalar_subquery()
