"""The rows of batches, and the leases on them. Import it only once the database is open: it brings SQLAlchemy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, or_, select, update

from app.ledger.files import ACTIVE, StoredFile, ordered
from app.ledger.tables.batches import batches, files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.ledger.db import Database

_CANCELLABLE = ("validating", "in_progress")


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; the columns of its table, times in seconds since 1970."""

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    status: str = "validating"
    key_id: str | None = None
    metadata: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_expires_s: int | None = None
    lease_owner: str | None = None
    lease_until_ms: int | None = None


_COLUMNS = [batches.c[field.name] for field in fields(Batch)]


class BatchStore:
    """Batches of all tenants. All methods raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: Batch) -> None:
        """Write down a new batch."""
        async with self._database.begin() as connection:
            await connection.execute(insert(batches).values(**asdict(batch)))

    async def get(self, tenant: str, batch_id: str) -> Batch | None:
        """Return a tenant's batch."""
        query = select(*_COLUMNS).where(batches.c.id == batch_id, batches.c.tenant == tenant)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else Batch(**row)

    async def page(self, tenant: str, after: str | None, limit: int) -> list[Batch]:
        """Return a tenant's batches, the newest first, those behind the batch ``after``."""
        query = select(*_COLUMNS).where(batches.c.tenant == tenant)
        query = ordered(query, batches, after, tenant, newest_first=True).limit(limit)
        async with self._database.connect() as connection:
            return [Batch(**row) for row in (await connection.execute(query)).mappings()]

    async def cancel(self, tenant: str, batch_id: str, now: int) -> bool:
        """Have a batch end early; return whether it was still to be stopped."""
        mine = (batches.c.id == batch_id) & (batches.c.tenant == tenant) & batches.c.status.in_(_CANCELLABLE)
        async with self._database.begin() as connection:
            done = await connection.execute(update(batches).where(mine).values(status="cancelling", cancelling_at=now))
            return done.rowcount > 0

    async def reads(self, file_id: str) -> str | None:
        """Return the id of a batch that is not over and reads this file."""
        query = select(batches.c.id).where(batches.c.input_file_id == file_id, batches.c.status.in_(ACTIVE))
        async with self._database.connect() as connection:
            return (await connection.execute(query.limit(1))).scalar()

    # -- leases --------------------------------------------------------------------------------------------------------

    async def active(self) -> list[Batch]:
        """Return the batches that are not over, the oldest first."""
        query = select(*_COLUMNS).where(batches.c.status.in_(ACTIVE)).order_by(batches.c.created_at, batches.c.id)
        async with self._database.connect() as connection:
            return [Batch(**row) for row in (await connection.execute(query)).mappings()]

    async def lease(self, batch: Batch, owner: str, now_ms: int, until_ms: int, *, owner_is_dead: bool) -> bool:
        """Take a batch to work on; return whether nobody else was faster.

        Args:
            batch: as it was read.
            owner: the run that takes it.
            now_ms: this and the next are milliseconds since 1970.
            until_ms: until when nobody else may take it.
            owner_is_dead: its last owner is known to be gone, so that the end of its lease is not waited for.
        """
        free = or_(batches.c.lease_owner.is_(None), batches.c.lease_until_ms < now_ms)
        if owner_is_dead:
            free = or_(free, batches.c.lease_owner == batch.lease_owner)
        mine = (batches.c.id == batch.id) & batches.c.status.in_(ACTIVE) & free
        async with self._database.begin() as connection:
            done = await connection.execute(
                update(batches).where(mine).values(lease_owner=owner, lease_until_ms=until_ms)
            )
            return done.rowcount == 1

    async def change(
        self, batch_id: str, owner: str, *, add: Iterable[StoredFile] = (), only: str | None = None, **values: Any
    ) -> str | None:
        """Change a batch as its owner; return its state after that, or None where the lease is another's by now.

        Args:
            batch_id: which.
            owner: the run that holds the lease.
            add: files that come with the change, or not at all.
            only: nothing is changed where the batch is in another state than this one.
            values: columns.
        """
        mine = (batches.c.id == batch_id) & (batches.c.lease_owner == owner)
        there = mine if only is None else mine & (batches.c.status == only)
        async with self._database.begin() as connection:
            done = await connection.execute(update(batches).where(there).values(**values))
            if done.rowcount:
                for file in add:
                    await connection.execute(insert(files).values(**asdict(file)))
            state = select(batches.c.status).where(batches.c.id == batch_id)
            held = mine if "lease_owner" not in values else batches.c.id == batch_id
            return (await connection.execute(state.where(held))).scalar()
