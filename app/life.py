"""What runs beside the calls: following the configuration, and telling the other workers and hosts what is known."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.admission import Limits
from app.backend.registry import Backends
from app.batch.runner import Runner
from app.guard.board import Board, BoardStore
from app.guard.cache import AnswerCache, MemoryCache
from app.guard.limits import Parallel, Rates
from app.guard.redis_client import RedisClient
from app.guard.redis_store import RedisStore
from app.guard.share import Sharing
from app.ledger.budgets import Budgets
from app.ledger.db import Database, DatabaseUnavailableError, address
from app.ledger.keys import Keys
from app.ledger.writer import Ledger
from app.parity.judge import Judge
from app.parity.keeper import Keeper
from app.parity.rival import Rival
from app.parity.shadow import Shadow
from app.route.classify import classify
from app.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from app.api.direct import Direct
    from app.gateway import Gateway
    from app.guard.lanes import Lane
    from app.guard.share import Store
    from app.prompts.library import Library
    from app.telemetry.otel import Otel

RUN_DIR = "SLUICE_RUN_DIR"
"""Set for the workers by their parent: the directory in which they meet."""
SUPERVISOR = "SLUICE_SUPERVISOR"
"""Set for the workers by their parent: its process id."""
_POLL_S = 0.1
_PROMPTS_EVERY = 4
"""Polls from one look at the prompt files to the next: they are many, and it takes two until a change is taken."""
_AGAIN_S = 1.0
_DATABASE_AGAIN_S = 2.0


@contextlib.asynccontextmanager
async def life(app: Direct) -> AsyncIterator[None]:
    """Be the app's lifespan."""
    gateway = app.gateway
    settings = gateway.live.current
    gateway.metrics.config_loaded(ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(gateway.metrics.hand_over)  # the other workers go on showing what this one has counted
        directory = os.environ.get(RUN_DIR) or stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-"))
        gateway.backends = Backends(int(settings.max_answer_mb * 1024 * 1024), Path(directory), gateway.metrics)
        stack.push_async_callback(gateway.backends.close)
        await _share(gateway, stack)
        await _trace(gateway, stack)
        _keep(gateway, stack)
        _compare(gateway, stack)
        _remember(gateway, stack)
        _work_off(app, gateway, stack)
        gateway.dependencies["prompts"] = partial(_prompts, gateway.library)
        await _price(gateway, stack)
        classify([{"role": "user", "content": "warm up"}])  # the first caller is not to wait for the weights
        follower = _Follower(gateway)
        gateway.reload = follower.reload_all
        with contextlib.suppress(ValueError, NotImplementedError, RuntimeError):  # no main thread, or no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, follower.reload_soon)
        _beside(stack, follower.run)
        yield


def _beside(stack: contextlib.AsyncExitStack, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in the background until the stack unwinds; what fails is logged and begun again."""

    async def keep_on() -> None:
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - whatever it is, it must not stay undone for good
                logs.log.exception("background work failed and begins again")
            await asyncio.sleep(_AGAIN_S)

    task = asyncio.create_task(keep_on())

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


async def _share(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Meet the other workers of this host on the board, and other hosts in Redis."""
    settings = gateway.live.current
    stores: list[Store] = []
    if settings.workers > 1 and RUN_DIR in os.environ:
        gateway.board = board = Board(Path(os.environ[RUN_DIR]), str(os.getpid()))
        stack.callback(board.close)
        stores.append(BoardStore(board))
    if settings.redis_url:
        store = RedisStore(settings.redis_url)
        stack.push_async_callback(store.aclose)
        stores.append(store)
    gateway.sharing = sharing = Sharing(gateway.lanes.breakers, stores)
    if settings.redis_url:
        gateway.dependencies["redis"] = lambda: _state(sharing.lost.get("redis"))
    if stores:
        _beside(stack, sharing.run)


async def _trace(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Export traces where the operator names a collector."""
    settings = gateway.live.current
    endpoint = settings.otel_exporter_otlp_endpoint
    if not endpoint or settings.otel_sdk_disabled:
        return
    try:
        otel = await asyncio.to_thread(_otel, endpoint, gateway)
    except ImportError as error:
        why = f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra [otel] is not installed: {error}"
        logs.log.error("%s", why)
        gateway.dependencies["otel"] = lambda: _state(why)
        return
    gateway.samples = otel.samples
    gateway.hooks.append(otel.observe)
    stack.push_async_callback(asyncio.to_thread, otel.close)


def _otel(endpoint: str, gateway: Gateway) -> Otel:
    from app.telemetry.otel import Otel

    return Otel(endpoint, gateway.metrics.label)


def _remember(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Set up the cache of answers and the limits of keys: in memory, and in Redis where there is one."""
    settings = gateway.live.current
    redis = RedisClient(settings.redis_url) if settings.redis_url else None
    if redis is not None:
        stack.push_async_callback(redis.aclose)
    gateway.cache = AnswerCache(MemoryCache(0, settings.cache_ttl_s), redis)
    gateway.cache.resize(settings.cache_mb, settings.cache_ttl_s)
    rates = Rates(settings.redis_url)
    stack.push_async_callback(rates.aclose)
    gateway.limits = Limits(rates, Parallel(redis))
    gateway.keys = Keys(gateway.database)
    if gateway.database is not None:
        gateway.budgets = budgets = Budgets(gateway.database, tell=gateway.metrics.budget_used)
        gateway.hooks.append(budgets.note)
        stack.push_async_callback(budgets.close)
        budgets.start()
        _beside(stack, gateway.keys.follow)


async def _price(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Have prices at hand; where the list has to be written first, the first calls' records wait for it."""
    prices = gateway.prices
    await prices.start()
    gateway.dependencies["prices"] = lambda: _state(prices.trouble)
    _beside(stack, prices.run)

    async def rest() -> None:
        prices.loaded.set()
        await asyncio.gather(*gateway.late)

    stack.push_async_callback(rest)


def _keep(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Open the database in the background: the first calls do not wait for it."""
    settings = gateway.live.current
    url = address(settings.database_url, settings.data_dir)
    if url is None:
        return
    gateway.database = database = Database(url)
    stack.push_async_callback(database.close)
    spill = Path(settings.data_dir) / "spill"
    ledger = Ledger(database, spill, int(settings.ledger_spill_mb * 1e6), gateway.metrics.ledger())
    stack.push_async_callback(ledger.close)
    gateway.hooks.append(ledger.observe)
    gateway.dependencies["ledger"] = lambda: _state(ledger.trouble)
    _beside(stack, ledger.run)
    gateway.dependencies["database"] = lambda: _state(database.trouble, starting=database.opening)
    _beside(stack, partial(_opened, database, gateway.serving))


def _work_off(app: Direct, gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Work on batches in the background."""
    settings = gateway.live.current
    if gateway.database is None or not settings.batch_parallel:
        return
    endpoints: Any = app  # FastAPI says of messages what ASGI says; mypy cannot see that it is the same
    runner = Runner(endpoints, gateway.database, settings.data_dir, settings.batch_parallel, lambda: gateway.draining)
    gateway.wake_batches = runner.wake
    _beside(stack, runner.run)


def _compare(gateway: Gateway, stack: contextlib.AsyncExitStack) -> None:
    """Compare answers with a reference's, and hold roles to what tests of parity decided."""
    keeper, rival = Keeper(gateway), Rival(gateway)
    shadow = Shadow(gateway, keeper, gateway.prices, Judge(gateway))
    keeper.start()
    gateway.after += [shadow.after, rival.after]
    for each in (keeper, shadow, rival):
        _beside(stack, each.run)


async def _opened(database: Database, serving: asyncio.Event) -> None:
    """Open the database, however long it takes until it can be; what has to be imported for it delays no start."""
    await serving.wait()
    told = ""
    while True:
        try:
            await database.start()
        except DatabaseUnavailableError as error:
            if told != str(error):
                logs.log.error("the database cannot be opened, calls are served without it: %s", error)
            told = str(error)
            await asyncio.sleep(_DATABASE_AGAIN_S)
        else:
            await asyncio.Event().wait()


def _prompts(library: Library) -> dict[str, Any]:
    return _state("they are being read", starting=True) if library.owed else _state(library.trouble())


def _state(lost: str | None, *, starting: bool = False) -> dict[str, Any]:
    status = "starting" if starting else "degraded"
    return {"status": "ready" if lost is None else status, "why": lost}


def _tell_broken(gateway: Gateway) -> None:
    for name, why in gateway.library.current.broken.items():
        logs.log.error("%s is out of use: %s", name, why)


def _tells(lane: Lane) -> bool:
    """Whether a lane has anything to show to the other workers."""
    return lane.breaker.state != "closed" or lane.breaker.counts()[1] > 0 or lane.gate.in_use > 0


class _Follower:
    """Follows the ``.env`` file, and reloads that other workers ask for."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._board = gateway.board
        self._parent = int(os.environ.get(SUPERVISOR) or os.getppid())
        self._generation = self._board.reload_generation() if self._board else 0

    async def run(self) -> None:
        """Look again and again."""
        if self._gateway.library.owed:
            await self._gateway.library.shelf()
            _tell_broken(self._gateway)
        for number in itertools.count():
            await asyncio.sleep(_POLL_S)
            loaded = self._gateway.live.poll()
            if loaded is not None:
                self._told(ok=loaded)
            if number % _PROMPTS_EVERY == 0:
                await self._follow_prompts()
            if self._board is not None:
                self._gateway.metrics.hand_over()
                self._meet(self._board)
                self._leave_with_the_parent()

    async def _follow_prompts(self) -> None:
        """Read the prompt files anew once one has changed; files and schemas are none of the event loop's work."""
        gateway = self._gateway
        if await asyncio.to_thread(gateway.library.poll, gateway.live.current.prompts_dir) is not None:
            logs.log.info("prompts loaded")
            _tell_broken(gateway)

    def _leave_with_the_parent(self) -> None:
        """End with the supervisor: where that was killed, nobody else tells its workers to go."""
        if os.getppid() != self._parent:
            logs.log.error("the supervisor is gone: this worker leaves")
            self._parent = os.getppid()
            os.kill(os.getpid(), signal.SIGTERM)

    def _meet(self, board: Board) -> None:
        """Show this worker's lanes to the others, and reload where one of them asks for it."""
        shown = (lane for lane in self._gateway.lanes if _tells(lane))
        board.publish("breakers", {str(lane.target): lane.snapshot() for lane in shown})
        generation = board.reload_generation()
        if generation != self._generation:
            self._generation = generation
            self.reload_soon()

    def reload_soon(self) -> None:
        """Read configuration and prompts anew once the file rests: it may be written again by the time one is told."""
        self._gateway.library.reload()
        self._gateway.live.reload_soon()

    def reload(self) -> bool:
        """Read both at once in this process; return whether the configuration is in force."""
        self._gateway.library.reload()
        return self._told(ok=self._gateway.live.reload())

    def reload_all(self) -> bool:
        """Do the same, and ask all other workers for it."""
        if self._board is not None:
            try:
                self._generation = self._board.bump_reload()
            except OSError as error:
                logs.log.error("the other workers cannot be asked to reload: %s", error)
        return self.reload()

    def _told(self, *, ok: bool) -> bool:
        gateway = self._gateway
        gateway.metrics.config_loaded(ok=ok)
        if ok:
            logs.log.info("configuration loaded")
            settings = gateway.live.current
            gateway.cache.resize(settings.cache_mb, settings.cache_ttl_s)
            configs = settings.backend_configs
            for lane in gateway.lanes:
                lane.breaker.forgive_key()
                if lane.target.backend in configs:
                    gateway.lanes.of(configs[lane.target.backend], lane.target)
        else:
            logs.log.error("configuration NOT loaded, the old one stays in force: %s", gateway.live.error)
        return ok
