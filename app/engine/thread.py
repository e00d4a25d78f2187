"""The one thread that touches MLX arrays: it loads, generates, embeds and unloads, and tells the event loop the news.

MLX streams belong to the thread that made them, so everything that evaluates happens here. The event loop posts work
and gets plain values back, with one wake-up a step however many requests there is news for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from app.engine.runner import Out, Runner

log = logging.getLogger("sluice.engine")
T = TypeVar("T")


class MlxThread:
    """Runs posted work and the runners' steps, turn by turn.

    Attributes:
        runners: the loaded models at work; changed on this thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tasks: list[Callable[[], bool]] = []
        self._thread = threading.Thread(target=self._run, name="mlx", daemon=True)
        self.runners: dict[str, Runner] = {}
        self.out: Out = []
        self._turn_began: float | None = None
        self.last_turn = time.monotonic()
        self.last_turn_s = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def busy_s(self) -> float:
        """Return how long the turn at work has taken so far, in seconds; 0 while the thread waits for work."""
        began = self._turn_began
        return 0.0 if began is None else time.monotonic() - began

    def stop(self) -> None:
        """Ask the thread to end after the turn at work."""
        self._inbox.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def post(self, work: Callable[[], None]) -> None:
        """Have work done on the thread; errors are logged."""
        self._inbox.put(work)

    async def call(self, work: Callable[[], T]) -> T:
        """Have work done on the thread and return its result or raise its error."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                self._settle(future, None, _bare(error))
            else:
                self._settle(future, result, None)

        self._inbox.put(run)
        return await future

    async def gradually(self, steps: Generator[float, None, T], tell: Callable[[float], None]) -> T:
        """Advance a generator one item a turn, between steps of the runners, and return its value.

        ``tell`` gets each item on the event loop. Cancelling the caller closes the generator before its next item.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def advance() -> bool:
            if future.cancelled():
                steps.close()
                return False
            try:
                fraction = next(steps)
            except StopIteration as end:
                self._settle(future, end.value, None)
                return False
            except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                self._settle(future, None, _bare(error))
                return False
            self._tell(tell, fraction)
            return True

        self._inbox.put(lambda: self._tasks.append(advance))
        return await future

    def _tell(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has ended, nobody is left to be told
            log.debug("the event loop has ended")

    def _settle(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._tell(_settle, future, result, error)

    def _run(self) -> None:
        while True:
            idle = not self._tasks and not any(runner.busy for runner in self.runners.values())
            try:
                item = self._inbox.get(block=idle)
                self._turn_began = time.monotonic()
                while True:
                    if item is None:
                        return
                    self._guarded(item)
                    item = self._inbox.get_nowait()
            except queue.Empty:
                pass
            if self._turn_began is None:
                self._turn_began = time.monotonic()
            self._turn()
            now = time.monotonic()
            self.last_turn_s, self.last_turn, self._turn_began = now - self._turn_began, now, None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("work on the MLX thread failed")

    def clear(self) -> None:
        """Close all runners; call it on the thread."""
        for runner in self.runners.values():
            runner.close(self.out)
        self.runners.clear()

    def _turn(self) -> None:
        self._tasks = [task for task in self._tasks if task()]
        for runner in list(self.runners.values()):
            if runner.busy:
                runner.step(self.out)
        if self.out:
            out, self.out = self.out, []
            self._tell(_deliver, out)


def _deliver(out: Out) -> None:
    for channel, delta in out:
        channel.put(delta)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _bare(error: Exception) -> Exception:
    """Return the error without its traceback, whose frames would keep a half-loaded model in memory."""
    error.__traceback__ = None
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error
