"""Callers' keys, what was spent with them, and what workers hold of their budgets."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from app.ledger.tables import metadata
from app.ledger.tables.money import Usd

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("digest", String(64), nullable=False, unique=True, comment="SHA-256 of the key"),
    Column("hint", String(32), nullable=False, comment="how the key begins and ends, for people"),
    Column("old_digest", String(64), comment="of the key before it was rotated"),
    Column("old_until_ms", BigInteger, comment="until when that one is still good"),
    Column("models", Text, nullable=False, comment="JSON: patterns"),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("max_parallel", Integer),
    Column("day_usd", Usd),
    Column("month_usd", Usd),
    Column("expires_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("version", BigInteger, nullable=False, comment="the clock's when it was last changed"),
)

key_clock = Table(
    "key_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False, comment="counts changes of keys; its row is their lock"),
)

key_spending = Table(
    "key_spending",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("period", String(10), primary_key=True, comment="2026-11-26, or 2026-11"),
    Column("spent_usd", Usd, nullable=False),
)

key_leases = Table(
    "key_leases",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("holder", String(32), primary_key=True, comment="a worker"),
    Column("amount_usd", Usd, nullable=False, comment="what it may spend, or has spent and not yet written"),
    Column("until_ms", BigInteger, nullable=False, comment="a worker that is gone renews no more"),
)
