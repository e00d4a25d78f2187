"""A new database: all tables at once, as the migrations make them one after the other, without Alembic's help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, insert

from app.ledger.tables import batches, calls, metadata, parity, responses  # noqa: F401 - they put themselves into it
from app.ledger.tables.keys import key_clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

VERSIONS = "alembic_version"
_versions = Table(
    VERSIONS,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic makes it, which goes on from here once there are further migrations."""


def create(connection: Connection, revisions: Iterable[str]) -> None:
    """Create every table, and say that these revisions were run."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(key_clock), {"id": 1, "version": 0})
    _versions.create(connection)
    connection.execute(insert(_versions), [{"version_num": each} for each in revisions])
