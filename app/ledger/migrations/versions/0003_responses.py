"""Stored responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "responses",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("tenant", sa.String(128), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("previous_id", sa.String(128)),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
    )
    op.create_index("responses_at", "responses", ["at_ms"])
    op.create_table(
        "response_items",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("tenant", sa.String(128), primary_key=True),
        sa.Column("response_id", sa.String(128), nullable=False),
        sa.Column("item", sa.Text, nullable=False),
    )
    op.create_index("response_items_response", "response_items", ["response_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("response_items")
    op.drop_table("responses")
