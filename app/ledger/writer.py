"""The ledger: a row a call, written in batches beside the calls, which never wait for a disk or a database.

A row waits in memory for a fraction of a second. Where the database is away or slow it goes to the spill file, and from
there to the database once that is back; a row is counted once, however often it is written. Where the disk takes
nothing either, rows wait in memory, up to a bound; what is lost beyond it is counted and told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from app.ledger.db import DatabaseUnavailableError
from app.ledger.rows import make_row, statements
from app.ledger.spill import Spill, orphans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.ledger.db import Database
    from app.ledger.rows import Row
    from app.telemetry.money import LedgerMetrics
    from app.trace import Record

log = logging.getLogger("sluice")
FLUSH_S = 0.2
_PATIENCE_S = 0.5
"""How long a batch waits for the database before it goes to the spill file as well: with FLUSH_S under a second."""
_AGAIN_S = 1.0
_LAST_S = 3.0
"""How long the last batch waits for the database when the gateway leaves."""
_MOST_ROWS = 50_000
"""Calls that may wait in memory, some 2 kB each."""
_BATCH = 2000
_TURN_S, _SHARE = 0.0005, 0.1
"""How long rows are made before the calls get their turn: at least this, and up to this share of what they took. A call
costs a hundred times its row, so that rows never pile up."""


class Ledger:
    """Takes Records in as a hook, and sees to it that they get into the database.

    Args:
        database: where they go.
        folder: where the spill files are.
        most_spilled: bytes that may wait there.
        metrics: told what became of rows.
    """

    def __init__(self, database: Database, folder: Path, most_spilled: int, metrics: LedgerMetrics) -> None:
        self._database = database
        self._folder = folder
        self._most = most_spilled
        self._metrics = metrics
        self._name = f"{time.time_ns() // 1_000_000:x}-{os.urandom(4).hex()}"
        self._path = folder / f"{self._name}.jsonl"
        self._spill = Spill(self._path, most_spilled)
        self._orphans: list[Spill] = []
        self._rows: list[Row] = []
        self._records: list[tuple[Record, float]] = []
        self._number = 0
        self._dropped = 0
        self._there = asyncio.Event()
        self._late: asyncio.Task[bool] | None = None
        self._current: asyncio.Task[None] | None = None
        self._next_try = 0.0
        self._disk: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why rows wait, and how many; None while they do not."""
        waiting = self._spill.waiting + sum(each.waiting for each in self._orphans)
        told = [self._disk and f"the spill file takes nothing: {self._disk}"]
        if waiting:
            told.append(f"{waiting / 1e6:.1f} MB of rows wait in the spill file")
        if self._dropped:
            told.append(f"{self._dropped} rows were lost")
        return "; ".join(each for each in told if each) or None

    def observe(self, record: Record) -> None:
        """Take one call in."""
        if len(self._records) + len(self._rows) >= _MOST_ROWS:
            self._lost(1, "no_room")
            return
        self._records.append((record, time.time()))
        self._there.set()

    async def run(self) -> None:
        """Write, again and again."""
        await asyncio.to_thread(self._adopt)
        while True:
            busy = self._rows or self._spill.waiting or self._orphans
            try:
                async with asyncio.timeout(_AGAIN_S if busy else None):  # wait_for may forget that it is cancelled
                    await self._there.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(FLUSH_S)
            self._current = asyncio.create_task(self.flush())
            await asyncio.shield(self._current)  # what is on its way is not to be lost when the gateway leaves

    def _adopt(self) -> None:
        try:
            self._orphans = orphans(self._folder, self._path, self._most)
        except OSError as error:
            self._disk = str(error)

    async def flush(self, patience_s: float = _PATIENCE_S) -> None:
        """Put what waits in memory into the database, or else into the spill file; then some of what waits there."""
        self._there.clear()
        rows = await self._made()
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            if await self._written(batch, patience_s):
                self._metrics.rows("written", len(batch))
            else:
                await self._spilled(batch)
        if not self._rows:
            self._disk = None
        await self._replay()
        self._metrics.waiting(len(self._rows), self._spill.waiting + sum(each.waiting for each in self._orphans))

    async def _made(self) -> list[Row]:
        """Make rows of the records that came in, in turns with the calls: the longer theirs, the longer are these."""
        rows, self._rows = self._rows, []
        records, self._records = self._records, []
        until = time.monotonic() + _TURN_S
        for record, at_s in records:
            self._number += 1
            rows.append(make_row(record, f"{self._name}-{self._number:x}", int(at_s * 1000)))
            now = time.monotonic()
            if now >= until:
                await asyncio.sleep(0)
                back = time.monotonic()
                until = back + max(_TURN_S, _SHARE * (back - now))
        return rows

    async def close(self) -> None:
        """Write what is left; what the database does not take stays in the spill file for the next start."""
        if self._current is not None:
            await asyncio.wait({self._current})
        await self.flush(_LAST_S)
        if self._late is not None:
            self._late.cancel()
            await asyncio.gather(self._late, return_exceptions=True)
        if self._rows:
            log.error("%d rows of the ledger are lost: neither the database nor the disk takes them", len(self._rows))
        for each in (self._spill, *self._orphans):
            await asyncio.to_thread(each.close)

    # -- the database --------------------------------------------------------------------------------------------------

    async def _written(self, rows: Sequence[Row], patience_s: float) -> bool:
        """Have the database take rows; return whether it has them. It may still get them later: that does no harm."""
        loop = asyncio.get_running_loop()
        if self._late is not None or (self._database.trouble is not None and loop.time() < self._next_try):
            return False
        task = asyncio.create_task(self._insert(rows))
        done, _ = await asyncio.wait({task}, timeout=patience_s)
        if not done:
            self._late = task
            task.add_done_callback(self._arrived)
            return False
        if not task.result():
            self._next_try = loop.time() + _AGAIN_S
        return task.result()

    def _arrived(self, _task: asyncio.Task[bool]) -> None:
        self._late = None

    async def _insert(self, rows: Sequence[Row]) -> bool:
        try:
            await self._database.write(statements(rows, sqlite=self._database.sqlite))
        except DatabaseUnavailableError as error:
            log.debug("the ledger's rows wait: %s", error)
            return False
        except Exception:
            if len(rows) == 1:
                log.exception("the database refuses a row of the ledger")
                self._lost(1, "refused")
                return True
            return all([await self._insert([each]) for each in rows])
        return True

    # -- the spill file ------------------------------------------------------------------------------------------------

    async def _spilled(self, rows: Sequence[Row]) -> None:
        """Put rows into the spill file; where it takes none they wait in memory again."""
        first = not self._spill.waiting
        try:
            await asyncio.to_thread(self._spill.append, rows)
        except OSError as error:
            if self._disk is None:
                log.warning("the ledger's rows wait in memory: %s", error)
            self._disk = str(error)
            self._rows[:0] = rows
            return
        if first:
            why = self._database.trouble or "the database is slow"
            level = logging.DEBUG if self._database.opening else logging.WARNING
            log.log(level, "the ledger's rows wait in %s: %s", self._path, why)
        self._disk = None
        self._metrics.rows("spilled", len(rows))

    async def _replay(self) -> None:
        """Have the database take some of what waits in files, the orphans' first."""
        for each in [*self._orphans, self._spill]:
            if not each.waiting:
                continue
            rows, read_to = await asyncio.to_thread(each.next)
            if rows and not await self._written(rows, _LAST_S):
                return
            await asyncio.to_thread(each.done, read_to)
            self._metrics.rows("replayed", len(rows))
            if each is not self._spill and not each.waiting:
                self._orphans.remove(each)
                await asyncio.to_thread(each.close)
            self._disk = None
            return

    def _lost(self, rows: int, why: str) -> None:
        if not self._dropped:
            log.error("rows of the ledger are lost: %s", why)
        self._dropped += rows
        self._metrics.rows(why, rows)
