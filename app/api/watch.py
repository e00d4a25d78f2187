"""A caller that leaves cancels the work for it, also where the server would let a plain handler run on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from app.api.parse import Receive
    from app.http1.exchange import Caller


class ClientWatch:
    """``async with ClientWatch(receive, caller) as watch``: the block is cancelled once the caller is gone.

    The cancellation ends with the block: look at ``gone`` after it. Sluice's own server tells through ``caller``; under
    another there is none, and a task waits for the word of ``receive``.
    """

    def __init__(self, receive: Receive, caller: Caller | None = None) -> None:
        self._receive = receive
        self._caller = caller
        self._work: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._answered = False
        self.gone = False

    async def __aenter__(self) -> Self:
        self._work = asyncio.current_task()
        caller = self._caller
        if caller is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        elif caller.gone:
            self._leave()
        else:
            caller.on_gone = self._leave
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._answered and self._work is not None:
            self.gone = True
            self._work.cancel()

    def answered(self) -> None:
        """Say that the whole answer is out: the server now reports a disconnect that means nothing."""
        self._answered = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._answered = True
        watcher, self._watcher = self._watcher, None  # it refers to this: both are freed at once
        if watcher is not None:
            watcher.cancel()
        if self._caller is not None:
            self._caller.on_gone = None
        if not self.gone or self._work is None:
            return False
        if kind is None:
            await self._swallow()
        self._work.uncancel()
        return kind is None or issubclass(kind, asyncio.CancelledError)

    @staticmethod
    async def _swallow() -> None:
        """Take the cancellation that was asked for while the block's last line ran."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return
