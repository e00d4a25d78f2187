"""Running the server: one process or several, and how they leave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from itertools import islice
from multiprocessing.connection import wait
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess, Process

from app.http1.protocol import Http1Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket
    from types import FrameType

    from app.settings import Live

_DRAIN_S = 2.0
"""How long connections that are kept alive may still bring a call after SIGTERM, each answered with ``close``."""
_MOST_AT_ONCE, _SHARE = 64, 8
"""Connections taken in a round of the event loop: by the only worker, and by a busy one of several."""
_BUSY_S = 0.005
"""Rounds that take longer are those of a busy worker; any other takes a single one, for the rest to get some."""
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_ROOM_S = 1.0
"""How long no connection is taken after one could not be for lack of files or memory, as asyncio does."""
_GARBAGE = 20_000
"""Objects made before garbage is looked for; Python's 700 mean several looks a call, and a call leaves hardly any."""
_FORKS: bool = sys.platform == "linux"
"""Whether workers are forked: elsewhere libraries of the system may not survive it, and each imports all for itself."""
_SHARED = ("app.main", "uvloop", "uvicorn.lifespan.on")
"""What a supervisor imports for the workers that it forks; none of it begins a thread, a loop or a connection."""
_SWITCH_S = 0.001
"""How long the event loop keeps a thread waiting that wants the interpreter, such as the ledger's; Python says 5 ms."""

log = logging.getLogger("sluice")


class Server(uvicorn.Server):
    """uvicorn's server, which leaves politely: no call is cut, and the exit status is 0.

    uvicorn closes idle connections at once and raises the signal again when it is done: a call that is on its way on a
    kept-alive connection would be cut, and the process would end as if it had been killed.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._arriving: set[asyncio.Task[None]] = set()
        self._taken_s = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the server runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second SIGINT does not wait."""
        super().handle_exit(sig, frame)
        app = self.config.loaded_app if self.config.loaded else None
        gateway = _gateway_of(app)
        if gateway is not None:
            gateway.draining = True

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to serve. What was imported stays, hardly any of it garbage: no collection is to walk it."""
        gc.freeze()
        gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
        gc.enable()
        sys.setswitchinterval(_SWITCH_S)
        await super().startup([])
        for each in sockets or []:
            each.setblocking(False)
            each.listen(self.config.backlog)
            self._listen(each)

    def _listen(self, listening: socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self._take_in, listening)

    def _take_in(self, listening: socket) -> None:
        """Accept the connections that wait, up to a number.

        uvloop takes one a round of the event loop, in which every call under way has its turn: of a hundred connections
        that come at once, the last would wait for a hundred rounds.
        """
        loop = asyncio.get_running_loop()
        try:
            for connection in islice(_accept(listening), self._most(loop.time())):
                arriving = loop.create_task(self._connect(connection))
                self._arriving.add(arriving)
                arriving.add_done_callback(self._arriving.discard)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            log.warning("no connection can be accepted for now: %s", error)
            loop.remove_reader(listening)
            loop.call_later(_NO_ROOM_S, self._listen_again, listening)

    def _most(self, now_s: float) -> int:
        """Return how many connections to take in this round."""
        before_s, self._taken_s = self._taken_s, now_s
        if self.config.workers == 1:
            return _MOST_AT_ONCE
        return _SHARE if now_s - before_s > _BUSY_S else 1

    def _listen_again(self, listening: socket) -> None:
        if not self.should_exit:
            self._listen(listening)

    async def _connect(self, connection: socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone again
            connection.close()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop listening, let kept-alive connections end by themselves, then do what uvicorn does."""
        await self._stop_listening(sockets or [])
        loop = asyncio.get_running_loop()
        until = loop.time() + _DRAIN_S
        while self.server_state.connections and loop.time() < until and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def _stop_listening(self, sockets: list[socket]) -> None:
        """Refuse further connections, but take in those that the kernel has already made: a call may be on them."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            loop.remove_reader(each)
        made: list[socket] = []
        for each in sockets:
            with each, contextlib.suppress(OSError):
                made.extend(_accept(each))
        await asyncio.gather(*self._arriving, *map(self._connect, made))

    def _protocol(self) -> asyncio.Protocol:
        """Make what uvicorn makes for a connection of its own."""
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _accept(listening: socket) -> Iterator[socket]:
    """Yield every connection that waits to be accepted.

    Raises:
        OSError: no more can be.
    """
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                connection, _ = listening.accept()
            except (ConnectionAbortedError, InterruptedError):  # it is gone again
                continue
            connection.setblocking(False)
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            yield connection


def _gateway_of(app: Any) -> Any:
    while app is not None and not hasattr(app, "gateway"):
        app = getattr(app, "app", None)
    return getattr(app, "gateway", None)


class _Worker(Process):
    """A worker process that runs our server; on Linux it begins with all that its supervisor has imported."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self._sockets = sockets
        if _FORKS:
            self.process = multiprocessing.get_context("fork").Process(target=self._forked)  # type: ignore[assignment]

    def start(self) -> None:
        """Start it. Signals wait until it has its own handlers: it is not to take one for its supervisor."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if _FORKS else ())
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _forked(self) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who begins reads the settings anyway
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self.target(self._sockets)

    def target(self, sockets: list[socket] | None = None) -> Any:
        """Run in the new process."""
        gc.disable()
        return super().target(sockets)

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = Server(config=self.config)
        return self._server  # type: ignore[return-value]

    def ping(self, timeout: float = 5) -> bool:
        """Whether the worker answers within so many seconds; one that dies meanwhile is not waited for.

        uvicorn waits out the whole time for one that dies just as it is asked: both ends of the pipe stay open here.
        """
        try:
            self.parent_conn.send(b"ping")
            ready = wait([self.parent_conn, self.process.sentinel], timeout)
            if self.parent_conn in ready:
                self.parent_conn.recv()
                return True
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        return False


class Supervisor(Multiprocess):
    """uvicorn's supervisor, except that SIGHUP is handed to the workers: a reload restarts nobody."""

    def init_processes(self) -> None:
        """Start the workers."""
        for name in _SHARED if _FORKS else ():
            importlib.import_module(name)
        gc.freeze()  # what is here now is shared with all workers, as long as nobody writes to it
        self.processes = [self._start() for _ in range(self.processes_num)]

    def _start(self) -> _Worker:
        worker = _Worker(self.config, self.sockets)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Replace a worker that died, and take its gauges out of the metrics."""
        if self.should_exit.is_set():
            return
        for index, worker in enumerate(self.processes):
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            worker.kill()
            worker.join()
            _forget(worker.pid)
            if worker.exitcode == uvicorn.config.STARTUP_FAILURE:
                self.should_exit.set()
                return
            self.processes[index] = self._start()

    def terminate_all(self) -> None:
        """Have the workers leave; the listening socket is theirs alone by then, so that the last of them closes it."""
        for each in self.sockets:
            each.close()
        super().terminate_all()

    def handle_hup(self) -> None:
        """Have every worker read its configuration anew."""
        for worker in self.processes:
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has just died, and will be replaced
                    os.kill(worker.pid, signal.SIGHUP)


def _forget(pid: int | None) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    if pid is not None:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def config_of(live: Live) -> uvicorn.Config:
    """Return what uvicorn is told of the server."""
    settings = live.current
    return uvicorn.Config(
        partial(_app, live) if settings.workers == 1 else "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=Http1Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.shutdown_s) or 1,
        timeout_worker_healthcheck=30,
    )


def serve(live: Live) -> int:
    """Serve until told to stop; return the exit status."""
    gc.disable()  # looking for garbage among imports takes a fifth of the start
    settings = live.current
    with _run_dir(settings.workers):
        config = config_of(live)
        if settings.workers == 1:
            server = Server(config)
            server.run([config.bind_socket()])
            return 0 if server.started else 3
        Supervisor(config, [config.bind_socket()]).run()
        return 0


def _app(live: Live) -> Any:
    """Make the only process' app; workers, which may start much later, load the settings themselves."""
    from app.main import create_app

    return create_app(live)


@contextlib.contextmanager
def _run_dir(workers: int) -> Iterator[None]:
    """Make the directory that the workers share, and take it away at the end."""
    path = tempfile.mkdtemp(prefix="sluice-")
    os.environ["SLUICE_RUN_DIR"] = path  # app.life.RUN_DIR; not imported here: the workers need it, not their parent
    if workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = path
        os.environ["SLUICE_SUPERVISOR"] = str(os.getpid())  # app.life.SUPERVISOR
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
