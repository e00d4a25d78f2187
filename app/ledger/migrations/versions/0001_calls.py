"""Calls and their attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "calls",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("endpoint", sa.String(32), nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("task", sa.String(128)),
        sa.Column("prompt_hash", sa.String(64)),
        sa.Column("role", sa.String(64)),
        sa.Column("kind", sa.String(32)),
        sa.Column("complexity", sa.Integer),
        sa.Column("target", sa.String(256)),
        sa.Column("arm", sa.String(256)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error_type", sa.String(64)),
        sa.Column("cache", sa.String(8)),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost_usd", sa.BigInteger),
        sa.Column("baseline_target", sa.String(256)),
        sa.Column("baseline_usd", sa.BigInteger),
        sa.Column("saved_usd", sa.BigInteger),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("backend_ms", sa.Float, nullable=False),
        sa.Column("first_token_ms", sa.Float),
        sa.Column("stages", sa.Text, nullable=False),
        sa.Column("faults", sa.Text, nullable=False),
        sa.Column("polished", sa.String(8)),
        sa.Column("rescued", sa.Text, nullable=False),
        sa.Column("chars", sa.Integer),
        sa.Column("code_block", sa.Boolean),
        sa.Column("prompt", sa.Text),
        sa.Column("answer", sa.Text),
    )
    op.create_index("calls_at", "calls", ["at_ms"])
    op.create_index("calls_tenant_at", "calls", ["tenant", "at_ms"])
    op.create_table(
        "attempts",
        sa.Column("call_id", sa.String(48), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.Column("duration_ms", sa.Float, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean),
        sa.Column("cost_usd", sa.BigInteger),
        sa.Column("price", sa.Text),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("attempts")
    op.drop_table("calls")
