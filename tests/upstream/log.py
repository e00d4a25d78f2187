"""What the upstream remembers of every attempt, and how a test waits for it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Ended = Literal["open", "done", "cut", "client_closed", "stopped"]


@dataclass(slots=True)
class Attempt:
    """One request that reached the upstream. Times are ``time.monotonic()`` seconds.

    Attributes:
        number: 1 for the first attempt at this model name.
        model: the body's model; ``/models`` for a list of models.
        headers: names in lower case.
        body: the parsed JSON, or None.
        faults: the names of the faults that applied.
        status: what was answered, or 0 where no head was sent.
        bytes: bytes written, head included.
        chunks: content chunks written to a stream.
        blocked: the client reads so slowly that nothing more can be written now.
        ended: ``open`` while under way; ``done``: answered as meant (an error status too); ``cut``: a fault ended it;
            ``client_closed``: the client left first; ``stopped``: the upstream was stopped.
        closed_at: when the client's close was noticed, or None.
    """

    number: int
    at: float
    path: str
    model: str
    connection: int
    headers: dict[str, str]
    body: Any
    faults: tuple[str, ...] = ()
    status: int = 0
    bytes: int = 0
    chunks: int = 0
    blocked: bool = False
    ended: Ended = "open"
    ended_at: float | None = None
    closed_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Waiters:
    """Tests that wait until the log is as they want it."""

    waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)

    def changed(self) -> None:
        """Let those go on whose wish has come true."""
        for wish, future in self.waiting:
            if not future.done():
                _settle(wish, future)

    async def wait(self, wish: Callable[[], bool], timeout_s: float) -> None:
        """Return as soon as the wish is true.

        Raises:
            TimeoutError: it was not true in time.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (wish, future)
        self.waiting.append(entry)
        try:
            self.changed()
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            self.waiting.remove(entry)


def _settle(wish: Callable[[], bool], future: asyncio.Future[None]) -> None:
    """A wish that raises fails the test that wished, not the attempt that changed the log."""
    try:
        if wish():
            future.set_result(None)
    except Exception as problem:  # noqa: BLE001 - whatever it is, it belongs to the test
        future.set_exception(problem)
