"""Which models are in memory: loading on demand within the budget, once each, and leaving by time or for room.

Runs on the event loop only; the MLX thread carries out what is decided here. Requests lease a model while they run:
a leased model is never unloaded, and requests that must wait for room are served in groups, model by model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from app.engine import faults, hub, runtime
from app.engine.errors import BusyError, CancelledLoadError, ModelError
from app.engine.loader import Loader
from app.engine.model import DOWNLOADING, FAILED, LOADING, NOT_LOADED, READY, TRANSIENT, Model
from app.engine.room import Resident, make_room
from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from app.engine.runner import Runner
    from app.engine.settings import EngineSettings
    from app.engine.thread import MlxThread

log = logging.getLogger("sluice.engine")
_TICK_S = 0.001  # past the moment, so that rounding does not call it too early
_SHARE = 0.7  # of the machine's memory, where no budget is set
_MADE_UP = 64  # failed names of callers' own making that are remembered, with MLX_ALLOW_ANY
_RETRY_S = 10.0  # seconds for which a failure is repeated instead of tried again


class Keeper:
    """Keeps the models."""

    def __init__(self, settings: EngineSettings, thread: MlxThread, *, widen: bool) -> None:
        self._settings, self._thread = settings, thread
        self.budget = settings.memory_bytes or int(runtime.machine_bytes() * _SHARE)
        self.models = {name: Model(name, pinned=name in settings.pin) for name in settings.allowed}
        self._moving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loader = Loader(settings, thread, self.budget, widen=widen)
        self._last_switch = 0.0
        self.unloads = 0

    # --- for requests -------------------------------------------------------------------------------------------

    def find(self, name: str) -> Model:
        """Return a model that may be used.

        Raises:
            ModelError: 404, the name is not on the allow-list.
        """
        model = self.models.get(name)
        if model is not None:
            return model
        if not self._settings.allow_any:
            known = ", ".join(self.models) or "none"
            raise ModelError(
                f"{name} is not among this engine's models ({known}): add it to MLX_MODELS, or set MLX_ALLOW_ANY=true "
                "to let callers name any",
                status=404,
                type="invalid_request_error",
                code="model_not_found",
            )
        self._forget_failed()
        return self.models.setdefault(name, Model(name))

    def _forget_failed(self) -> None:
        """Drop names that callers made up, oldest first, so that they do not pile up."""
        made_up = [m.name for m in self.models.values() if m.name not in self._settings.allowed and m.state == FAILED]
        for name in made_up[: max(0, len(made_up) - _MADE_UP)]:
            del self.models[name]

    @contextlib.asynccontextmanager
    async def lease(self, model: Model) -> AsyncIterator[Runner]:
        """Wait until the model is ready and keep it loaded while the block runs.

        Raises:
            ModelError: it cannot be loaded.
            BusyError: too many requests wait already.
        """
        await self._granted(model)
        try:
            yield self._thread.runners[model.name]
        finally:
            model.leases -= 1
            model.last_use = time.monotonic()
            self._pump()

    async def _granted(self, model: Model) -> None:
        if model.state == READY and not model.draining:
            self._check_queue()
            model.leases += 1
            return
        if model.error is not None and time.monotonic() - model.failed_at < _RETRY_S:
            raise model.error
        self._check_queue()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (time.monotonic(), future)
        model.waiting.append(entry)
        self._pump()
        try:
            await future
        except asyncio.CancelledError:
            self._withdraw(model, entry)
            raise

    def _withdraw(self, model: Model, entry: tuple[float, asyncio.Future[None]]) -> None:
        if entry in model.waiting:
            model.waiting.remove(entry)
        elif entry[1].done() and not entry[1].cancelled() and entry[1].exception() is None:
            model.leases -= 1
        self._pump()

    def _check_queue(self) -> None:
        if self.queued() + self.leased() >= self._settings.queue:
            raise BusyError(
                f"{self._settings.queue} requests run or wait already: try again, or raise MLX_QUEUE", retry_after_s=1.0
            )

    def queued(self) -> int:
        """Return how many requests wait for a model."""
        return sum(len(model.waiting) for model in self.models.values())

    def leased(self) -> int:
        """Return how many requests run."""
        return sum(model.leases for model in self.models.values())

    # --- for operators ------------------------------------------------------------------------------------------

    async def load(self, model: Model, *, pin: bool = False) -> None:
        """Load a model as a request would, and pin it where asked.

        Raises:
            ModelError: it cannot be loaded.
        """
        model.pinned = model.pinned or pin
        model.error = None
        async with self.lease(model):
            pass

    async def pull(self, model: Model) -> None:
        """Download a model without loading it.

        Raises:
            ModelError: it cannot be downloaded.
        """
        model.error = None
        if model.folder is None:
            self._fetch(model)
        if model.work is not None:
            await asyncio.wait({model.work})
        if model.folder is None:
            raise model.error or CancelledLoadError(f"the download of {model.name} was cancelled")

    async def unload(self, model: Model) -> None:
        """Stop a download or a load under way, or unload the model once its requests are done; unpin it."""
        model.pinned = False
        model.progress.cancelled = True
        self._refuse(model, CancelledLoadError(f"{model.name} was unloaded on request"))
        if model.state == LOADING and self._moving is not None:
            self._moving.cancel()
            await asyncio.wait({self._moving})
        if model.work is not None:
            model.work.cancel()  # its thread ends at the next piece that arrives
            await asyncio.wait({model.work})
        model.draining = model.state == READY
        while model.state == READY and model.draining:
            self._pump()
            if self._moving is not None:
                await asyncio.wait({self._moving})
            else:
                await asyncio.sleep(0.01)

    def start(self) -> None:
        """Begin to load what is to be preloaded."""
        for name in self._settings.preload:
            self._spawn(self._preload(self.models[name]))

    async def _preload(self, model: Model) -> None:
        try:
            await self.load(model)
        except SluiceError as error:
            log.warning("preload of %s: %s", model.name, error.message)

    async def close(self) -> None:
        """Stop everything under way."""
        if self._timer is not None:
            self._timer.cancel()
        for model in self.models.values():
            model.progress.cancelled = True
            self._refuse(model, CancelledLoadError("the engine is going down"))
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- decisions ----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Do whatever can be done now: grant, fetch, make room, load, let go."""
        now = time.monotonic()
        for model in self.models.values():
            if model.state == READY and not model.draining:
                self._grant(model)
        if self._moving is None:
            self._move(now)
        self._set_timer(now)

    def _grant(self, model: Model) -> None:
        while model.waiting:
            _, future = model.waiting.popleft()
            if not future.done():
                model.leases += 1
                future.set_result(None)

    def _move(self, now: float) -> None:
        """Start at most one change of what is in memory."""
        leaving = [m for m in self.models.values() if self._leaves(m, now)]
        if leaving:
            self._begin(self._switch(leaving, None))
            return
        wanting = sorted((m for m in self.models.values() if m.waiting), key=lambda m: m.waiting[0][0])
        for model in wanting:
            if model.state in {READY, LOADING, DOWNLOADING}:
                continue
            if model.folder is None:
                self._fetch(model)
            elif self._make_room(model, now):
                return

    def _leaves(self, model: Model, now: float) -> bool:
        if model.state != READY or model.leases or model.pinned:
            return False
        idle = self._settings.ttl_s and now - model.last_use >= self._settings.ttl_s
        return model.draining or bool(idle and not model.waiting)

    def _make_room(self, model: Model, now: float) -> bool:
        room = make_room(
            [_resident(m) for m in self.models.values() if m.resident],
            model.cost,
            self.budget - self._loader.draft_bytes,
            impatient=now >= self._patience_ends(model),
        )
        if room.never:
            self._fail(model, _too_large(model, self.budget))
            return False
        for name in room.drain:
            self.models[name].draining = True
        if room.fits or room.evict:
            self._begin(self._switch([self.models[n] for n in room.evict], model if room.fits else None))
            return True
        return False

    def _patience_ends(self, model: Model) -> float:
        """Every model keeps its turn for the patience, however long the others have waited before it got it."""
        return max(model.waiting[0][0], self._last_switch) + self._settings.patience_s

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        moments = [
            self._patience_ends(m)
            for m in self.models.values()
            if m.waiting and not m.resident and m.folder is not None
        ]
        if self._settings.ttl_s:
            idle = [m for m in self.models.values() if m.state == READY and not (m.leases or m.pinned)]
            moments += [m.last_use + self._settings.ttl_s for m in idle]
        self._timer = None
        to_come = [moment - now for moment in moments if moment > now]  # what is due waits for something that pumps
        if to_come:
            self._timer = asyncio.get_running_loop().call_later(min(to_come) + _TICK_S, self._pump)

    # --- deeds --------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._moving = self._spawn(work)
        self._moving.add_done_callback(self._moved)

    def _moved(self, task: asyncio.Task[None]) -> None:
        self._moving = None
        if not task.cancelled() and task.exception() is not None:
            log.error("a change of models failed", exc_info=task.exception())
        self._pump()

    async def _switch(self, leaving: list[Model], coming: Model | None) -> None:
        for model in leaving:
            await self._unload(model)
        if coming is not None:
            await self._load(coming)
        self._share_kv_room()

    async def _unload(self, model: Model) -> None:
        if model.leases:
            return
        model.state, model.draining = NOT_LOADED, False
        await self._thread.call(lambda: self._loader.drop(model.name))
        self.unloads += 1
        log.info("unloaded %s", model.name)

    async def _load(self, model: Model) -> None:
        began = time.monotonic()
        model.state, model.fraction, model.error, model.draining = LOADING, 0.0, None, False
        try:
            await self._thread.gradually(self._loader.install(model), lambda done: setattr(model, "fraction", done))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told to those who wait
            await asyncio.shield(self._thread.call(lambda: None))  # a turn, in which a cancelled load is closed
            await asyncio.shield(self._thread.call(runtime.give_back_memory))
            self._fail(model, faults.explain(error, model.name))
            return
        model.state = READY
        model.since = model.last_use = self._last_switch = time.monotonic()
        model.load_s, model.loads = model.since - began, model.loads + 1
        log.info("loaded %s in %.2f s", model.name, model.load_s)

    def _share_kv_room(self) -> None:
        ready = [m for m in self.models.values() if m.state == READY and m.folder is not None]
        if not ready:
            return
        weights = self._loader.draft_bytes + sum(
            int(m.folder.weight_bytes * TRANSIENT) for m in ready if m.folder is not None
        )
        prefixes = len(ready) * self._loader.limits().prefix_bytes
        share = max(1, (self.budget - weights - prefixes) // len(ready))

        def tell() -> None:
            for runner in self._thread.runners.values():
                runner.kv_room = share

        self._thread.post(tell)

    def _fetch(self, model: Model) -> None:
        if model.work is None:
            model.state, model.progress = DOWNLOADING, hub.Progress()
            model.work = self._spawn(self._fetching(model))

    async def _fetching(self, model: Model) -> None:
        try:
            path = await asyncio.to_thread(hub.fetch, model.name, model.progress, offline=self._settings.offline)
            model.folder = await asyncio.to_thread(self._loader.read, path)
            await asyncio.to_thread(self._loader.fetch_draft)
            model.state = NOT_LOADED
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told to those who wait
            model.progress.cancelled = True
            self._fail(model, faults.explain(error, model.name))
        finally:
            model.work = None
        self._pump()

    def _fail(self, model: Model, error: SluiceError) -> None:
        cancelled = isinstance(error, CancelledLoadError)
        model.state = NOT_LOADED if cancelled else FAILED
        model.error = None if cancelled else error
        model.failed_at = time.monotonic()
        model.folder = None  # its files may be replaced before the next try
        log.warning("%s: %s", model.name, error.message)
        self._refuse(model, error)

    def _refuse(self, model: Model, error: SluiceError) -> None:
        while model.waiting:
            _, future = model.waiting.popleft()
            if not future.done():
                future.set_exception(error)


def _resident(model: Model) -> Resident:
    return Resident(
        name=model.name,
        cost=model.cost,
        busy=bool(model.leases) or model.state == LOADING,
        wanted=bool(model.waiting),
        pinned=model.pinned,
        last_use=model.last_use,
    )


def _too_large(model: Model, budget: int) -> ModelError:
    return ModelError(
        f"{model.name} needs {model.cost / 1e9:.2f} GB and the budget is {budget / 1e9:.2f} GB: "
        "raise MLX_MEMORY_GB, unpin other models, or choose a smaller one",
        status=507,
        code="insufficient_memory",
    )
