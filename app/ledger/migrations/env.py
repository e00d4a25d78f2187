"""What Alembic runs: the migrations, on the connection that app.ledger.db hands over."""

from __future__ import annotations

from alembic import context

from app.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
