"""The rows of files. Import it only once the database is open: it brings SQLAlchemy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, Table, delete, insert, or_, select

from app.ledger.tables.batches import batches, files

if TYPE_CHECKING:
    from app.ledger.db import Database


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file; times in seconds since 1970."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None


class FileStore:
    """Files of all tenants. All methods raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, file: StoredFile) -> None:
        """Write down a new file, which lies in its place already."""
        async with self._database.begin() as connection:
            await connection.execute(insert(files).values(**asdict(file)))

    async def get(self, tenant: str, file_id: str) -> StoredFile | None:
        """Return a tenant's file."""
        return _file(await _first(self._database, select(files).where(files.c.id == file_id, files.c.tenant == tenant)))

    async def page(
        self, tenant: str, *, purpose: str | None, after: str | None, limit: int, newest_first: bool = True
    ) -> list[StoredFile]:
        """Return files of a tenant in the order of their making, those behind the file ``after``."""
        query = select(files).where(files.c.tenant == tenant)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        query = ordered(query, files, after, tenant, newest_first=newest_first)
        async with self._database.connect() as connection:
            rows = await connection.execute(query.limit(limit))
            return [StoredFile(**row) for row in rows.mappings()]

    async def delete(self, tenant: str, file_id: str) -> bool:
        """Forget a tenant's file; return whether there was one."""
        async with self._database.begin() as connection:
            done = await connection.execute(delete(files).where(files.c.id == file_id, files.c.tenant == tenant))
            return done.rowcount > 0

    async def forget_expired(self, now: int) -> list[str]:
        """Forget the files whose time is over, except the inputs of batches that are not; return their ids."""
        needed = select(batches.c.input_file_id).where(batches.c.status.in_(ACTIVE))
        over = (files.c.expires_at <= now) & files.c.id.not_in(needed)
        async with self._database.begin() as connection:
            ids = list((await connection.execute(select(files.c.id).where(over))).scalars())
            await connection.execute(delete(files).where(files.c.id.in_(ids)))
        return ids

    async def known(self, ids: list[str]) -> set[str]:
        """Return those of the ids that are files."""
        async with self._database.connect() as connection:
            return set((await connection.execute(select(files.c.id).where(files.c.id.in_(ids)))).scalars())


ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
"""The states of a batch that is not over."""


def ordered(query: Select[Any], table: Table, after: str | None, tenant: str, *, newest_first: bool) -> Select[Any]:
    """Order a tenant's rows by their making, from behind the row ``after`` on."""
    made, name = table.c.created_at, table.c.id
    if after is not None:
        moment = select(made).where(name == after, table.c.tenant == tenant).scalar_subquery()
        behind = made < moment if newest_first else made > moment
        beside = (made == moment) & (name < after if newest_first else name > after)
        query = query.where(or_(behind, beside))
    return query.order_by(made.desc(), name.desc()) if newest_first else query.order_by(made, name)


async def _first(database: Database, query: Select[Any]) -> Any:
    async with database.connect() as connection:
        return (await connection.execute(query)).mappings().first()


def _file(row: Any) -> StoredFile | None:
    return None if row is None else StoredFile(**row)
