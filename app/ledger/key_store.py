"""Keys in the database: made, listed, revoked, rotated. A key itself is shown once and kept as its SHA-256 only."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.call import KeyTerms
from app.errors import CallerError
from app.ledger.periods import periods
from app.ledger.tables.keys import api_keys, key_clock, key_spending

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Row

    from app.ledger.connection import Connection
    from app.ledger.db import Database
    from app.ledger.key_terms import NewKey

PREFIX = "sk-sluice-"
"""Keys begin with this, so that scanners for leaked secrets and people know what they look at."""
_RANDOM_BYTES = 32
_PAGE = 200
"""Keys that are read in one go: some milliseconds, which calls under way wait for."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One row, without the key.

    Attributes:
        digests: SHA-256 of the key, and, while it is still good, of the one before it was rotated: until when, in
            seconds since 1970, or None for no end.
        spent_usd: in the present day and month.
    """

    terms: KeyTerms
    hint: str
    created_at: float
    revoked_at: float | None
    digests: tuple[tuple[bytes, float | None], ...]
    version: int
    spent_usd: tuple[Decimal, Decimal] = (Decimal(0), Decimal(0))


def digest_of(key: bytes) -> bytes:
    """Return what is kept of a key. It holds 256 random bits: no salt makes guessing it harder."""
    return hashlib.sha256(key).digest()


class KeyStore:
    """The keys of one database.

    Args:
        database: opened.
        wall: seconds since 1970.
    """

    def __init__(self, database: Database, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall

    async def create(self, wanted: NewKey) -> tuple[str, StoredKey]:
        """Make a key; return it, which nobody can do again, and its row.

        Raises:
            CallerError: 409, the name is taken.
            DatabaseUnavailableError: the database is away.
        """
        key = _fresh()
        row = {
            **wanted.row(),
            "id": f"key_{secrets.token_hex(8)}",
            "digest": digest_of(key.encode()).hex(),
            "hint": _hint(key),
            "created_ms": self._now_ms(),
        }
        try:
            async with self._database.begin() as connection:
                row["version"] = await _tick(connection)
                await connection.execute(insert(api_keys).values(row))
        except IntegrityError as error:
            raise CallerError(
                f"There is a key named {wanted.name!r} already.", status=409, code="key_exists", param="name"
            ) from error
        return key, await self.get(row["id"])

    async def all(self) -> list[StoredKey]:
        """Return every key, revoked ones as well, the newest last, each with what was spent.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        day, month = periods(self._wall())
        async with self._database.connect() as connection:
            rows = (await connection.execute(select(api_keys).order_by(api_keys.c.created_ms, api_keys.c.id))).all()
            sums = await connection.execute(select(key_spending).where(key_spending.c.period.in_([day, month])))
            spent = {(key_id, period): usd for key_id, period, usd in sums.all()}
        zero = Decimal(0)
        return [_stored(row, (spent.get((row.id, day), zero), spent.get((row.id, month), zero))) for row in rows]

    async def get(self, name: str) -> StoredKey:
        """Return a key by its name or id.

        Raises:
            CallerError: 404, there is none.
            DatabaseUnavailableError: the database is away.
        """
        for each in await self.all():
            if name in {each.terms.id, each.terms.name}:
                return each
        raise _unknown(name)

    async def revoke(self, name: str) -> StoredKey:
        """Take a key out of use for good, by its name or id.

        Raises:
            CallerError: 404, there is none that is in use.
            DatabaseUnavailableError: the database is away.
        """
        return await self._change(name, {"revoked_ms": self._now_ms(), "old_digest": None, "old_until_ms": None})

    async def rotate(self, name: str, grace_s: float = 0) -> tuple[str, StoredKey]:
        """Put a new key in the place of one; the old one is good for ``grace_s`` more seconds.

        Limits, budgets and what was spent stay.

        Raises:
            CallerError: 404, there is none that is in use.
            DatabaseUnavailableError: the database is away.
        """
        key = _fresh()
        changes = {
            "old_digest": api_keys.c.digest if grace_s > 0 else None,
            "old_until_ms": self._now_ms() + int(grace_s * 1000) if grace_s > 0 else None,
            "digest": digest_of(key.encode()).hex(),
            "hint": _hint(key),
        }
        return key, await self._change(name, changes)

    async def _change(self, name: str, changes: dict[str, Any]) -> StoredKey:
        async with self._database.begin() as connection:
            version = await _tick(connection)
            found = or_(api_keys.c.id == name, api_keys.c.name == name)
            statement = (
                update(api_keys).where(found, api_keys.c.revoked_ms.is_(None)).values(**changes, version=version)
            )
            changed = await connection.execute(statement.returning(api_keys.c.id))
            key_id = changed.scalar_one_or_none()
            if key_id is None:
                raise _unknown(name)
        return await self.get(key_id)

    async def changes(self, since: int) -> list[StoredKey]:
        """Return some of the keys that changed after the version ``since``, the first changes first.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        async with self._database.connect() as connection:
            version = (await connection.execute(select(key_clock.c.version))).scalar_one()
            if version == since:
                return []
            changed = select(api_keys).where(api_keys.c.version > since).order_by(api_keys.c.version).limit(_PAGE)
            rows = (await connection.execute(changed)).all()
        return [_stored(row) for row in rows]

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)


async def _tick(connection: Connection) -> int:
    """Count one change; others that change keys wait until this transaction ends."""
    ticked = update(key_clock).values(version=key_clock.c.version + 1).returning(key_clock.c.version)
    return int((await connection.execute(ticked)).scalar_one())


def _fresh() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def _hint(key: str) -> str:
    return f"{key[: len(PREFIX) + 3]}…{key[-4:]}"


def _unknown(name: str) -> CallerError:
    return CallerError(f"There is no key {name!r} in use.", status=404, code="key_not_found", param="key")


def _stored(row: Row[Any], spent_usd: tuple[Decimal, Decimal] = (Decimal(0), Decimal(0))) -> StoredKey:
    expires_at = _seconds(row.expires_ms)
    digests = [(bytes.fromhex(row.digest), None)] if row.revoked_ms is None else []
    old = [(bytes.fromhex(row.old_digest), _seconds(row.old_until_ms))] if row.old_digest is not None else []
    terms = KeyTerms(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        models=tuple(orjson.loads(row.models)),
        rpm=row.rpm,
        tpm=row.tpm,
        max_parallel=row.max_parallel,
        day_usd=row.day_usd,
        month_usd=row.month_usd,
        expires_at=expires_at,
    )
    created, revoked = row.created_ms / 1000, _seconds(row.revoked_ms)
    return StoredKey(terms, row.hint, created, revoked, (*digests, *old), row.version, spent_usd)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
