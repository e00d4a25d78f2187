"""The database: SQLite in DATA_DIR, or PostgreSQL. SQLAlchemy and Alembic are imported in a thread, and only here.

Opening it takes a second, most of it imports: calls are served meanwhile, and rows wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from sqlalchemy import Connection as Plain
    from sqlalchemy import Engine

    from app.ledger.connection import Connection

OFF = "off"
"""The DATABASE_URL that keeps nothing."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 5.0
"""How long SQLite waits for another worker's transaction; those of Sluice take milliseconds."""
_CONNECT_S = 5.0
_STATEMENT_S = 10.0
"""How long a PostgreSQL that says nothing is waited for."""
_PG_LOCK = 0x51_0C_1CE
"""The advisory lock under which one host migrates; any number that others hardly take."""


class DatabaseUnavailableError(Exception):
    """The database cannot be reached, or cannot write now. It may pass: nothing is wrong with the statement."""


class Database:
    """One database, opened once and used by everything that keeps something.

    Attributes:
        url: as SQLAlchemy has it, the driver included. Holds the password.
        trouble: why it cannot be used now, for people; None while it can.
        opening: whether the first try to open it is still under way, which is no reason to worry.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.trouble: str | None = "it is being opened"
        self.opening = True
        self._engine: Engine | None = None
        self._plain: Engine | None = None

    @property
    def sqlite(self) -> bool:
        """Whether it is a file of this host."""
        return self.url.startswith("sqlite")

    @property
    def engine(self) -> Engine:
        """The engine, whose driver is an asynchronous one.

        Raises:
            DatabaseUnavailableError: it is not open yet.
        """
        if self._engine is None:
            raise DatabaseUnavailableError(self.trouble or "it is not open")
        return self._engine

    async def start(self) -> None:
        """Bring the tables up to date and open the engine; may be called again after it failed.

        Raises:
            DatabaseUnavailableError: it cannot be; ``trouble`` says why.
        """
        if self._engine is not None:
            return
        try:
            with self._judged(opening=True):
                self._engine, self._plain = await asyncio.to_thread(_opened, self.url)
        finally:
            self.opening = False

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """Give a connection in a transaction that writes: committed at the end, rolled back on an exception.

        On SQLite no other writer comes in between, from its begin on. On PostgreSQL lock the rows that you read.

        Raises:
            DatabaseUnavailableError: the database is down or cannot write. Mistakes in a statement raise SQLAlchemy's.
        """
        with self._judged():
            engine = self.engine
            from app.ledger.connection import begun  # brings SQLAlchemy, which is there by now

            async with begun(engine) as connection:
                yield connection

    async def write(self, statements: Iterable[tuple[str, Any]]) -> None:
        """Run statements, each with its parameters, in one transaction.

        On SQLite they are one piece of work for a thread. Else each would be a way to a thread and back, for which a
        busy event loop has a round or two to make first: a tenth of a second each under full load.

        Raises:
            DatabaseUnavailableError: the database is down or cannot write. Mistakes in a statement raise SQLAlchemy's.
        """
        if self._plain is not None:
            with self._judged():
                await asyncio.to_thread(_write, self._plain, list(statements))
            return
        async with self.begin() as connection:
            for statement, values in statements:
                await connection.exec_driver_sql(statement, values)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Give a connection that reads.

        Raises:
            DatabaseUnavailableError: the database is down.
        """
        with self._judged():
            engine = self.engine
            from app.ledger.connection import connected

            async with connected(engine) as connection:
                yield connection

    async def close(self) -> None:
        """Close all connections; harmless when repeated."""
        engine, self._engine = self._engine, None
        plain, self._plain = self._plain, None
        self.trouble = "it is closed"
        if plain is not None:
            await asyncio.to_thread(plain.dispose)
        if engine is not None:
            from app.ledger.connection import dispose

            await dispose(engine)

    @contextlib.contextmanager
    def _judged(self, *, opening: bool = False) -> Iterator[None]:
        """Tell a database that is away from a statement that is wrong, and keep ``trouble`` up to date."""
        try:
            yield
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            if not (opening or _is_away(error)):
                raise
            self.trouble = _told(error)
            raise DatabaseUnavailableError(self.trouble) from error
        self.trouble = None


def address(url: str, data_dir: str) -> str | None:
    """Return the database's address with the driver in it; None where nothing is to be kept.

    Args:
        url: DATABASE_URL: ``postgresql://…``, ``sqlite:///path``, ``off``; empty for a file in ``data_dir``.
        data_dir: DATA_DIR.

    Raises:
        ValueError: it is neither of them.
    """
    if url == OFF:
        return None
    if not url:
        return f"sqlite+aiosqlite:///{Path(data_dir).absolute() / 'sluice.db'}"
    parts = urlsplit(url)
    if parts.scheme in {"sqlite", "sqlite+aiosqlite"}:
        return f"sqlite+aiosqlite{url[len(parts.scheme) :]}"
    if parts.scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("must be postgresql://user:password@host/name, sqlite:////path/to/file, or off")
    query = urlencode([("ssl" if name == "sslmode" else name, value) for name, value in parse_qsl(parts.query)])
    return urlunsplit(parts._replace(scheme="postgresql+asyncpg", query=query))


def _opened(url: str) -> tuple[Engine, Engine | None]:
    """Migrate, then make the engine, and on SQLite a plain one beside it.

    Runs in a thread, with an event loop of its own for the migrations.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if url.startswith("sqlite"):
        Path(url.partition(":///")[2]).parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(_migrate(url))
    return _engine(url), _plain_engine(url) if url.startswith("sqlite") else None


def _write(engine: Engine, statements: list[tuple[str, Any]]) -> None:
    from app.ledger.connection import WRITES

    with engine.connect() as plain:
        connection = plain.execution_options(**{WRITES: True})
        with connection.begin():
            for statement, values in statements:
                connection.exec_driver_sql(statement, values)


def _engine(url: str) -> Engine:
    from sqlalchemy import create_engine

    if not url.startswith("sqlite"):
        limits = {"timeout": _CONNECT_S, "command_timeout": _STATEMENT_S}
        return create_engine(url, connect_args=limits, pool_pre_ping=True, pool_timeout=_STATEMENT_S)
    engine = create_engine(url, connect_args={"timeout": _BUSY_S}, pool_timeout=_STATEMENT_S)
    _listen(engine)
    return engine


def _plain_engine(url: str) -> Engine:
    from sqlalchemy import create_engine

    plain = url.replace("+aiosqlite", "", 1)
    engine = create_engine(plain, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
    _listen(engine)
    return engine


def _listen(engine: Engine) -> None:
    """Have connections to SQLite prepared, and transactions begin as they should."""
    from sqlalchemy import event

    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Have writers not lock out readers; a killed process loses nothing, a power cut the last moments at most."""
    connection.isolation_level = None  # transactions begin in _begin_sqlite, not where the driver thinks fit
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Plain) -> None:
    """Take the write lock at once: a reader that turns writer would fail where another was faster."""
    from app.ledger.connection import WRITES

    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


async def _migrate(url: str) -> None:
    """Bring the tables up to date, one process at a time."""
    from app.ledger.connection import begun, dispose

    engine = _engine(url)
    try:
        async with begun(engine) as connection:  # on SQLite that is the lock
            if not url.startswith("sqlite"):
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PG_LOCK})")
            await connection.run_sync(_upgrade)
    finally:
        await dispose(engine)


def _upgrade(connection: Plain) -> None:
    """Create the tables, or run the migrations that are missing: only for these Alembic, 10 MB, is imported."""
    from sqlalchemy import inspect, text

    from app.ledger.tables.create import VERSIONS, create

    newest = newest_revisions()
    if not inspect(connection).has_table(VERSIONS):
        create(connection, newest)
        return
    if set(connection.scalars(text(f"SELECT version_num FROM {VERSIONS}"))) == newest:  # noqa: S608 - ours
        return
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "heads")


def newest_revisions() -> set[str]:
    """Return the revisions that no other follows, read from the files as Alembic would."""
    found = [path.read_text() for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")]
    revisions = {each for text in found for each in re.findall(r'^revision = "(\w+)"', text, re.MULTILINE)}
    before = [each for text in found for each in re.findall(r"^down_revision = (.+)$", text, re.MULTILINE)]
    return revisions - {each for text in before for each in re.findall(r'"(\w+)"', text)}


def _is_away(error: Exception) -> bool:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    away = (OperationalError, InterfaceError, PoolTimeoutError, OSError, TimeoutError)
    return isinstance(error, away) or _is_asyncpg(error)


def _is_asyncpg(error: Exception) -> bool:
    """Whether the driver itself could not connect, which SQLAlchemy hands on as it is."""
    return type(error).__module__.partition(".")[0] == "asyncpg"


def _told(error: Exception) -> str:
    """Say what is wrong in a line: the driver's own words, not the statement with its values."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else 'no reason given'}"[:300]
