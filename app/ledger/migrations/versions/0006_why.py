"""Why a call was judged and sent as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("calls", sa.Column("why", sa.Text))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("calls", "why")
