"""Calls that are passed on as they are: one attempt, and an answer that may be anything, pulled piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from app.backend.base import Whole
from app.dispatch import Answer
from app.errors import BackendError, Reason
from app.hold import late
from app.patience import Until
from app.usage import read_usage

if TYPE_CHECKING:
    from typing import Any

    from app.backend.http import Reply
    from app.call import Ask, Target
    from app.dispatch import Walk
    from app.hold import Hold
    from app.trace import Trace


@runtime_checkable
class _Relays(Protocol):
    """A backend that has more endpoints than those whose answers are understood here."""

    async def relay(self, ask: Ask, target: Target, trace: Trace) -> Reply:
        """Pass a call on; return once the response's headers are there."""

    def decode(self, raw: bytes) -> dict[str, Any]:
        """Decode a plain answer."""


class RelayAnswer:
    """An answer whose head and first bytes are in hand.

    Attributes:
        content_type: as the backend told it.
    """

    def __init__(self, walk: Walk, hold: Hold, reply: Reply, first: bytes) -> None:
        self.target = hold.lane.target
        self.content_type: str = reply.headers.get("content-type", "application/octet-stream")
        self._walk = walk
        self._hold = hold
        self._reply = reply
        self._first = first
        self._idle_s = walk.config(self.target).limits.idle_s
        self._settled = False

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` once the answer is whole.

        Raises:
            BackendError: STALLED, CUT or DEADLINE.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            data = await self._next()
        except BackendError as error:
            self._settled = True
            self._reply.close()
            self._walk.lost(self._hold, error)
            raise
        if not data:
            self._settled = True
            self._reply.finish()
            self._hold.settle("ok")
            self._walk.tried(self._hold, "ok", None)
        return data

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = self._walk.deadline(self.target)
        if loop.time() >= deadline:
            raise late()
        try:
            with Until(min(loop.time() + self._idle_s, deadline)):
                return await self._reply.some()
        except TimeoutError as error:
            if loop.time() >= deadline:
                raise late() from error
            message = f"{self.target} went silent for {self._idle_s:g} s in the middle of its answer."
            raise BackendError(Reason.STALLED, message, status=504) from error

    def close(self) -> None:
        """Close the connection where the answer is not whole: the caller left."""
        if not self._settled:
            self._settled = True
            self._reply.close()
            self._hold.settle("ignored")


async def attempt(walk: Walk, hold: Hold) -> Answer | RelayAnswer:
    """Make one attempt: a JSON answer is read as a whole, anything else up to its first bytes.

    Raises:
        BackendError: it failed.
    """
    target = hold.lane.target
    backend = await walk.prepared(target)
    if not isinstance(backend, _Relays):
        raise TypeError(f"{target} was planned for an endpoint that it does not have")
    limit_s = walk.config(target).limits.answer_s
    until = min(asyncio.get_running_loop().time() + limit_s, walk.deadline(target))
    try:
        with Until(until):
            return await _begun(walk, hold, backend)
    except TimeoutError as error:
        if walk.remaining_s() <= 0:
            raise late() from error
        raise BackendError(Reason.SLOW_ANSWER, f"{target} gave no answer within {limit_s:g} s.", status=504) from error


async def _begun(walk: Walk, hold: Hold, backend: _Relays) -> Answer | RelayAnswer:
    trace = walk.trace
    reply = await backend.relay(walk.ask, hold.lane.target, trace)
    trace.stage("first_token")
    try:
        if not _is_json(reply):
            return RelayAnswer(walk, hold, reply, await reply.some())
        raw = await reply.read(int(walk.settings.max_answer_mb * 1024 * 1024))
    except BaseException:
        reply.close()
        raise
    reply.close()
    trace.stage("answer")
    body = backend.decode(raw)
    hold.settle("ok")
    walk.tried(hold, "ok", read_usage(body.get("usage")))
    return Answer(hold.lane.target, Whole(raw, body))


def _is_json(reply: Reply) -> bool:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"
