"""Responses that callers had stored, and their items by id."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from app.ledger.tables import metadata

responses = Table(
    "responses",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("tenant", String(128), primary_key=True, comment="ids are the backends' own: two could give one"),
    Column("at_ms", BigInteger, nullable=False, comment="when it was answered, milliseconds since 1970, UTC"),
    Column("previous_id", String(128), comment="the response that it follows; it may be gone by now"),
    Column("input", Text, nullable=False, comment="JSON: the items that the caller sent with it"),
    Column("response", Text, nullable=False, comment="JSON: as it was answered"),
    Index("responses_at", "at_ms"),
)

response_items = Table(
    "response_items",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("tenant", String(128), primary_key=True),
    Column("response_id", String(128), nullable=False),
    Column("item", Text, nullable=False, comment="JSON"),
    Index("response_items_response", "response_id"),
)
