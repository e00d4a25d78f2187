"""Files that callers uploaded or batches wrote, and the batches; what is in the files lies in DATA_DIR/files."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from app.ledger.tables import metadata

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("filename", String(512), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False, comment="seconds since 1970, UTC"),
    Column("expires_at", BigInteger, comment="after that it is deleted; null: never"),
    Index("files_tenant_created", "tenant", "created_at"),
    Index("files_expires", "expires_at"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("key_id", String(64), comment="the key whose limits its calls have; null: none"),
    Column("endpoint", String(64), nullable=False),
    Column("input_file_id", String(64), nullable=False),
    Column("completion_window", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("metadata", Text, comment="JSON; the caller's"),
    Column("created_at", BigInteger, nullable=False, comment="this and the other times: seconds since 1970, UTC"),
    Column("in_progress_at", BigInteger),
    Column("expires_at", BigInteger, nullable=False),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("errors", Text, comment="JSON: what is wrong with the input"),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("output_expires_s", BigInteger, comment="for how long its output files are kept"),
    Column("lease_owner", String(64), comment="the run that works on it"),
    Column("lease_until_ms", BigInteger, comment="milliseconds since 1970; after that another may take it"),
    Index("batches_tenant_created", "tenant", "created_at"),
    Index("batches_status", "status"),
)
