"""Which batches this process works on: it takes leases on what nobody works on, a few batches at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING

from app.batch.folder import Folder
from app.batch.run import LEASE_S, Run, Shop
from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.batch.local import App
    from app.ledger.batches import Batch, BatchStore
    from app.ledger.db import Database
    from app.ledger.files import FileStore

_LOOK_S = 1.0
_CLEAN_S = 600.0
_ABANDONED_S = 24 * 3600.0
"""What no row names and nobody wrote to for a day was left by a process that was killed."""
_AT_ONCE = 4
"""Batches of one process at a time; their lines share BATCH_PARALLEL."""
_AFTER_TROUBLE_S = 5.0
_LEAVE_S = 3.0
"""How long lines that are hung up on may take to end."""
log = logging.getLogger("sluice")


class Runner:
    """Works on batches until it is cancelled; one a process.

    Args:
        app: this process's own endpoints.
        database: where the batches are.
        data_dir: where the files are.
        parallel: how many lines may be under way at once.
        draining: whether the process is on its way out.
    """

    def __init__(
        self, app: App, database: Database, data_dir: str, parallel: int, draining: Callable[[], bool]
    ) -> None:
        self._app = app
        self._database = database
        self._folder = Folder(data_dir)
        self._parallel = parallel
        self._draining = draining
        self._process = secrets.token_hex(8)
        self._count = 0
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._rest_until: dict[str, float] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say that there is something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Look for work again and again."""
        await self._database_open()
        living = asyncio.ensure_future(asyncio.to_thread(self._folder.live, self._process))
        try:
            await asyncio.shield(living)  # cancelled now, it would leave behind an open file
            await self._look_again_and_again()
        finally:
            await self._leave()
            (await living).close()
            self._folder.forget(self._process)

    async def _database_open(self) -> None:
        while self._database.trouble is not None:  # noqa: ASYNC110 - it may go away again: there is no event for it
            await asyncio.sleep(_LOOK_S / 4)

    async def _look_again_and_again(self) -> None:
        from app.ledger.batches import BatchStore  # brings SQLAlchemy, which is there by now
        from app.ledger.files import FileStore, StoredFile

        store = BatchStore(self._database)
        permits = asyncio.Semaphore(self._parallel)
        shop = Shop(self._app, store, self._folder, permits, self._parallel, self._draining, StoredFile)
        clean_at = 0.0
        while True:
            self._wake.clear()
            with contextlib.suppress(DatabaseUnavailableError):
                await self._take(store, shop)
                if time.monotonic() >= clean_at:
                    clean_at = time.monotonic() + _CLEAN_S
                    await self._clean(store, FileStore(self._database))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):  # wait_for forgets that it is cancelled when both come at once
                    await self._wake.wait()

    async def _take(self, store: BatchStore, shop: Shop) -> None:
        """Take leases while there is room; tenants that have the fewest batches here come first."""
        room = _AT_ONCE - len(self._runs)
        if room <= 0 or self._draining():
            return
        waiting = [batch for batch in await store.active() if batch.id not in self._runs and self._may(batch)]
        for batch in _fairly(waiting)[:room]:
            await self._lease(batch, store, shop)

    def _may(self, batch: Batch) -> bool:
        now = time.monotonic()
        self._rest_until = {name: until for name, until in self._rest_until.items() if until > now}
        return batch.id not in self._rest_until and self._folder.path(batch.input_file_id).exists()

    async def _lease(self, batch: Batch, store: BatchStore, shop: Shop) -> None:
        now_ms = int(time.time() * 1000)
        if batch.lease_owner is not None and (batch.lease_until_ms or 0) >= now_ms:
            dead = await asyncio.to_thread(self._folder.is_dead, batch.lease_owner.partition("-")[0])
            if not dead:
                return
        else:
            dead = False
        self._count += 1
        owner = f"{self._process}-{self._count}"
        until_ms = now_ms + int(LEASE_S * 1000)
        if await store.lease(batch, owner, now_ms, until_ms, owner_is_dead=dead):
            run = Run(batch, owner, shop)
            task = asyncio.create_task(run.go())
            self._runs[batch.id] = (run, task)
            task.add_done_callback(lambda done: self._over(batch, done))

    def _over(self, batch: Batch, task: asyncio.Task[None]) -> None:
        self._runs.pop(batch.id, None)
        self._wake.set()
        if task.cancelled() or task.exception() is None:
            return
        self._rest_until[batch.id] = time.monotonic() + _AFTER_TROUBLE_S
        log.error("the batch %s is interrupted and goes on later: %r", batch.id, task.exception())

    async def _leave(self) -> None:
        """End all runs; what their lines have not answered is done by whoever comes next."""
        runs = list(self._runs.values())
        for run, _ in runs:
            run.leave()
        tasks = [task for _, task in runs]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- order ---------------------------------------------------------------------------------------------------------

    async def _clean(self, store: BatchStore, files: FileStore) -> None:
        """Delete files whose time is over, and what killed processes left."""
        for file_id in await files.forget_expired(int(time.time())):
            await asyncio.to_thread(self._folder.drop, file_id)
        old = await asyncio.to_thread(lambda: list(self._folder.old(time.time() - _ABANDONED_S)))
        known = await files.known([path.name for path in old])
        active = {batch.id for batch in await store.active()}
        for path in old:
            if path.name not in known and _batch_of(path) not in active:
                await asyncio.to_thread(path.unlink, missing_ok=True)
        await asyncio.to_thread(self._folder.forget_dead)


def _batch_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _fairly(waiting: list[Batch]) -> list[Batch]:
    """Order batches so that every tenant's first one comes before any tenant's second."""
    seen: dict[str, int] = {}
    ranked = []
    for place, batch in enumerate(waiting):
        seen[batch.tenant] = seen.get(batch.tenant, 0) + 1
        ranked.append((seen[batch.tenant], place, batch))
    return [batch for _, _, batch in sorted(ranked, key=lambda each: each[:2])]
