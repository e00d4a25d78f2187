"""Connections of SQLAlchemy, awaited: as much of its asyncio extension as the ledger needs.

The extension brings the whole ORM, a third of SQLAlchemy's memory, which nothing here uses. What it does for a call is
little: it runs in a greenlet, and the task waits wherever the driver does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from sqlalchemy import Connection as Plain
    from sqlalchemy import CursorResult, Dialect, Engine, Executable
    from sqlalchemy.sql.selectable import TypedReturnsRows

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
WRITES = "sluice_writes"
"""The option of connections whose transactions write."""


class Connection:
    """One connection."""

    __slots__ = ("_plain",)

    def __init__(self, plain: Plain) -> None:
        self._plain = plain

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        return self._plain.dialect

    @overload
    async def execute(self, statement: TypedReturnsRows[*Ts], values: Any = None) -> CursorResult[*Ts]: ...

    @overload
    async def execute(self, statement: Executable, values: Any = None) -> CursorResult[*tuple[Any, ...]]: ...

    async def execute(self, statement: Any, values: Any = None) -> Any:
        """Run a statement with its values, or once for each of a list of values; the rows are all there then."""
        return await greenlet_spawn(self._plain.execute, statement, values)

    async def exec_driver_sql(self, statement: str, values: Any = None) -> None:
        """Run a text as the driver takes it."""
        await greenlet_spawn(self._plain.exec_driver_sql, statement, values)

    async def run_sync(self, work: Callable[[Plain], T]) -> T:
        """Have something work on the connection as SQLAlchemy has it."""
        return await greenlet_spawn(work, self._plain)


@contextlib.asynccontextmanager
async def connected(engine: Engine) -> AsyncIterator[Connection]:
    """Give a connection of an engine that has an asynchronous driver."""
    plain = await greenlet_spawn(engine.connect)
    try:
        yield Connection(plain)
    finally:
        await _to_the_end(greenlet_spawn(plain.close))


@contextlib.asynccontextmanager
async def begun(engine: Engine) -> AsyncIterator[Connection]:
    """Give one in a transaction that writes: committed at the end, rolled back on an exception."""
    async with connected(engine) as connection:
        plain = await connection.run_sync(lambda plain: plain.execution_options(**{WRITES: True}))
        transaction = await greenlet_spawn(plain.begin)
        try:
            yield connection
        except BaseException:
            await greenlet_spawn(transaction.__exit__, *sys.exc_info())
            raise
        await greenlet_spawn(transaction.__exit__, None, None, None)


async def dispose(engine: Engine) -> None:
    """Close all connections of an engine."""
    await greenlet_spawn(engine.dispose)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do something even where the task is cancelled meanwhile: a connection given back by half is lost to its pool."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
