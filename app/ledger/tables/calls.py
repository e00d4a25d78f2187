"""One row a call, and one for each of its attempts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from app.ledger.tables import metadata
from app.ledger.tables.money import Usd

calls = Table(
    "calls",
    metadata,
    Column("id", String(48), primary_key=True, comment="Sluice's own; callers may repeat a request id"),
    Column("request_id", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=False, comment="its end, milliseconds since 1970, UTC"),
    Column("tenant", String(128), nullable=False),
    Column("endpoint", String(32), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("task", String(128)),
    Column("prompt_hash", String(64)),
    Column("role", String(64)),
    Column("kind", String(32)),
    Column("complexity", Integer),
    Column("target", String(256)),
    Column("arm", String(256)),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error_type", String(64)),
    Column("cache", String(8)),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False, comment="whether Sluice counted the tokens, not the backend"),
    Column("cost_usd", Usd, comment="all attempts together; null where one of them has no price"),
    Column("baseline_target", String(256)),
    Column("baseline_usd", Usd, comment="the same tokens at the baseline's price; null where that has none"),
    Column("saved_usd", Usd, comment="baseline less cost; negative where the call cost more"),
    Column("total_ms", Float, nullable=False),
    Column("backend_ms", Float, nullable=False),
    Column("first_token_ms", Float),
    Column("stages", Text, nullable=False, comment="JSON: milliseconds by stage"),
    Column("faults", Text, nullable=False, comment="comma list"),
    Column("polished", String(8)),
    Column("rescued", Text, nullable=False, comment="comma list"),
    Column("chars", Integer),
    Column("code_block", Boolean),
    Column("prompt", Text, comment="JSON; only with LOG_CONTENT"),
    Column("answer", Text, comment="only with LOG_CONTENT"),
    Column(
        "why", Text, comment="why it was judged and sent as it was, a sentence a line; quotes nothing of the prompt"
    ),
    Index("calls_at", "at_ms"),
    Index("calls_tenant_at", "tenant", "at_ms"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("call_id", String(48), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="from 0"),
    Column("target", String(256), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("result", String(64), nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("estimated", Boolean),
    Column("cost_usd", Usd, comment="null: unpriced, or nothing was used"),
    Column("price", Text, comment="the rates used, per million tokens, and where they come from"),
)
