"""The engine's process: started on demand, shared by all workers of the host, ended when the last of them is gone.

Workers meet in one directory. Whoever takes the lock there starts the engine, which keeps the lock for as long as it
lives: so there is never a second one. Its standard input is a named pipe that every worker holds open; when nobody does
any more, the engine reads the end of it and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("sluice")
ENGINE_LOST = "engine_lost"
"""The code of an error that is the engine's end and not the model's fault: the lane's breaker does not count it. An
engine that keeps ending is held back by its host, and that counts."""
ENGINE_UNAVAILABLE = "engine_unavailable"
"""The code of an error that the engine does not start."""
START_S = 60.0
"""How long the engine may take until it listens: it does so before it imports mlx, so this is ample."""
_POLL_S = 0.02
_BACKOFF_S = (0.0, 0.5, 2.0, 5.0, 15.0, 30.0)
"""Waits before the next start after that many deaths in a row."""
_HEALTHY_S = 60.0
"""An engine that lived this long did not die of what killed the one before it."""
_LEAVE_S = 8.0
_RECENTLY_S = 1.0
"""How long connections may still break of an engine that has ended."""
_EXIT_S = 0.3
"""How long after its connections broke an engine's exit status may still come."""


class EngineHost:
    """This worker's hold on the engine.

    Attributes:
        socket: where the engine listens.
        restarts: how often this worker has started it again.
        last_exit: why it ended last, in words, or None.
    """

    def __init__(self, directory: Path, environment: Callable[[], Mapping[str, str]]) -> None:
        self.socket = directory / "engine.sock"
        self._lock_path = directory / "engine.lock"
        self._pipe_path = directory / "engine.alive"
        self._environment = environment
        self._single_flight = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._pipe: int | None = None
        self._deaths = 0
        self._born = 0.0
        self._not_before = 0.0
        self._died = -_RECENTLY_S
        self._news = asyncio.Event()
        self.restarts = 0
        self.last_exit: str | None = None

    async def ensure(self) -> None:
        """Return once the engine accepts connections, starting it where nobody has.

        Raises:
            BackendError: it does not start; the message says why.
        """
        if await self.answers():
            return
        async with self._single_flight:
            if not await self.answers():
                await self._start()

    async def answers(self) -> bool:
        """Whether somebody accepts on the socket."""
        try:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        writer.close()
        self._hold_pipe()
        return True

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            wait_s = self._not_before - loop.time()
            raise unavailable(f"The local engine ended ({self.last_exit}) and starts again in {wait_s:.0f} s.", wait_s)
        until = loop.time() + START_S
        mine: asyncio.subprocess.Process | None = None
        while not await self.answers():
            if mine is not None and mine.returncode is not None:
                raise unavailable(f"The local engine did not start: {_told(mine.returncode)}.", 5.0)
            if loop.time() > until:
                raise unavailable(f"The local engine did not listen within {START_S:g} s.", 5.0)
            mine = mine or await self._try_spawn()  # another worker may have the turn, and may fail
            await asyncio.sleep(_POLL_S)

    async def _try_spawn(self) -> asyncio.subprocess.Process | None:
        """Start the engine, unless another worker does so or its engine lives."""
        with self._locked() as lock:
            return await self._spawn(lock) if lock is not None else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Try to take the lock; None where another worker or a living engine has it."""
        lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            yield None
            return
        try:
            yield lock
        finally:
            os.close(lock)  # the engine has inherited it, and with it the lock

    async def _spawn(self, lock: int) -> asyncio.subprocess.Process:
        if not self._pipe_path.exists():
            os.mkfifo(self._pipe_path, 0o600)
        stdin = os.open(self._pipe_path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._hold_pipe()
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.engine", "--uds", str(self.socket), "--exit-on-eof"),
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(lock,),
                env={**os.environ, **self._environment()},
                cwd=Path(__file__).parent.parent.parent,
                start_new_session=True,  # Ctrl-C is the gateway's: the engine finishes what is under way
            )
        finally:
            os.close(stdin)
        log.info("local engine started, pid %d", process.pid)
        self._born = asyncio.get_running_loop().time()
        self._watcher = asyncio.create_task(self._watch(process))
        return process

    def _hold_pipe(self) -> None:
        """Hold the pipe open for writing: the engine lives while somebody does."""
        if self._pipe is None:
            with contextlib.suppress(OSError):  # no reader yet: the next look will have one
                self._pipe = os.open(self._pipe_path, os.O_WRONLY | os.O_NONBLOCK)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Note why the engine ended, and how long to wait before the next one."""
        await self._listen(process)
        code = await process.wait()
        now = asyncio.get_running_loop().time()
        self._deaths = 1 if now - self._born > _HEALTHY_S else self._deaths + 1
        self._not_before = now + _BACKOFF_S[min(self._deaths - 1, len(_BACKOFF_S) - 1)]
        self._ended(code)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Read what the engine says until it ends: on Linux it survives a first kill by itself, and tells of it."""
        if process.stdout is None:
            return
        async for line in process.stdout:
            word, _, number = line.decode().strip().partition(" ")
            if word == "killed" and number.isdigit():
                self._ended(-int(number))

    def _ended(self, code: int) -> None:
        self._died = asyncio.get_running_loop().time()
        self.last_exit = _told(code)
        self.restarts += 1
        self._news.set()
        log.error("local engine ended: %s", self.last_exit)

    async def why_gone(self) -> str | None:
        """Say why the engine ended that has just broken a connection; None where it lives or is another worker's."""
        if self._watcher is None:
            return None
        if asyncio.get_running_loop().time() - self._died > _RECENTLY_S:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_S):
                    await self._news.wait()
        return self.last_exit if self._news.is_set() else None

    @property
    def trouble(self) -> str | None:
        """Why local models are not to be relied on: the engine ended twice or more in a row a short time ago."""
        now = asyncio.get_running_loop().time()
        if self._deaths < 2 or now > max(self._born, self._not_before) + _HEALTHY_S:  # noqa: PLR2004 - once is an accident
            return None
        return f"the local engine ended {self._deaths} times in a row: {self.last_exit}"

    async def close(self) -> None:
        """Let go of the engine; the last worker to do so ends it."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._watcher is not None:
            self._watcher.cancel()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await process.wait()


_EXITS = {
    0: "it was told to",
    2: "wrong settings; its log says which",
    3: "the extra 'local' is not installed",
    4: "its address is taken",
    75: "a step hung",
    -9: "killed, most likely for want of memory (lower MLX_MEMORY_GB)",
}


def _told(code: int) -> str:
    unknown = f"killed by signal {-code}" if code < 0 else f"exit status {code}; its log says why"
    return _EXITS.get(code, unknown)


def unavailable(message: str, retry_after_s: float) -> BackendError:
    """Return the error that there is no engine, and when there may be one, in seconds."""
    return BackendError(
        Reason.CONNECT, message, status=503, code=ENGINE_UNAVAILABLE, retry_after_s=max(retry_after_s, 1.0)
    )
