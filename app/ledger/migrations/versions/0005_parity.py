"""Tests of parity, shadow samples and what they cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    _parity_tests()
    _shadow_samples()
    _router_labels()
    _parity_events()
    _shadow_days()


def _parity_tests() -> None:
    op.create_table(
        "parity_tests",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("task", sa.String(128), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("reference", sa.String(256), nullable=False),
        sa.Column("prompt_hash", sa.String(64), nullable=False),
        sa.Column("margin", sa.Float, nullable=False),
        sa.Column("alpha", sa.Float, nullable=False),
        sa.Column("reliability", sa.Float, nullable=False),
        sa.Column("budget", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rolled_back", sa.Boolean, nullable=False),
        sa.Column("armed", sa.Boolean, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("decided_ms", sa.BigInteger),
    )
    op.create_index("parity_tests_key", "parity_tests", ["key", "armed"])
    op.create_index("parity_tests_role", "parity_tests", ["role", "state"])


def _shadow_samples() -> None:
    op.create_table(
        "shadow_samples",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("test_id", sa.String(40), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("task", sa.String(128), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("reference", sa.String(256), nullable=False),
        sa.Column("difference", sa.Integer),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("first", sa.Integer),
        sa.Column("second", sa.Integer),
        sa.Column("again", sa.Integer),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("shadow_prompt_tokens", sa.BigInteger),
        sa.Column("shadow_completion_tokens", sa.BigInteger),
        sa.Column("shadow_usd", sa.BigInteger),
        sa.Column("judge_usd", sa.BigInteger),
    )
    op.create_index("shadow_samples_test", "shadow_samples", ["test_id", "difference"])
    op.create_index("shadow_samples_at", "shadow_samples", ["at_ms"])


def _router_labels() -> None:
    op.create_table(
        "router_labels",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("reference", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(32)),
        sa.Column("complexity", sa.Integer),
        sa.Column("difference", sa.Integer, nullable=False),
        sa.Column("layout", sa.String(32), nullable=False),
        sa.Column("features", sa.Text, nullable=False),
    )


def _parity_events() -> None:
    op.create_table(
        "parity_events",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("test_id", sa.String(40), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("told", sa.Text, nullable=False),
    )
    op.create_index("parity_events_at", "parity_events", ["at_ms"])


def _shadow_days() -> None:
    op.create_table(
        "shadow_days",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("usd", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for name in ("shadow_days", "parity_events", "router_labels", "shadow_samples", "parity_tests"):
        op.drop_table(name)
