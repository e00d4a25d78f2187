"""Local MLX models: the engine of this host, or engines elsewhere, behind the ordinary OpenAI wire."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

from app.backend import wire_errors
from app.call import Trace
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from app.backend.base import EventStream, Whole
    from app.backend.engine_host import EngineHost
    from app.backend.openai_http import OpenAIBackend
    from app.call import Ask, BackendConfig, Target

_FRESH_S = 20.0
"""A model that answered this lately is taken as loaded; asking the engine costs a round trip."""
_AHEAD = 4
"""A warm engine is preferred while it has at most this many more calls under way than the idlest."""
_REPORT_S = 1.0
_REMEMBERED = 10_000


class _Place:
    """One engine: its wire, and what is known to be warm there."""

    def __init__(self, wire: OpenAIBackend) -> None:
        self.wire = wire
        self.outstanding = 0
        self.answered: dict[str, float] = {}


class MlxBackend:
    """The backend ``mlx``."""

    always_ready = False

    def __init__(
        self, config: BackendConfig, wires: list[OpenAIBackend], host: EngineHost | None, allowed: frozenset[str] | None
    ) -> None:
        """Take the wires to the engines.

        Args:
            config: the backend's.
            wires: one for each engine.
            host: the process on this machine, or None where the engines are elsewhere.
            allowed: models that may be loaded; None allows all.
        """
        self.config = config
        self._places = [_Place(wire) for wire in wires]
        self._host = host
        self._allowed = allowed
        self._homes: OrderedDict[str, _Place] = OrderedDict()

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:  # noqa: ARG002 - it always waits
        """Start the engine and load the model; that takes as long as it takes, up to the call's deadline.

        Raises:
            BackendError: the model cannot be had; the message names the remedy.
        """
        if self._allowed is not None and target.model not in self._allowed:
            raise BackendError(
                Reason.MODEL_MISSING,
                f"{target} is not among the local models: name it in a role or MLX_MODELS, or set MLX_ALLOW_ANY=true.",
                status=404,
                code="model_not_allowed",
                param="model",
            )
        place = self._place_for(target.model, None)
        now = asyncio.get_running_loop().time()
        if now - place.answered.get(target.model, -_FRESH_S) < _FRESH_S:
            return
        if self._host is not None:
            await self._host.ensure()
        try:
            async with asyncio.timeout_at(deadline):
                await self._load(place, target.model)
        except TimeoutError as error:
            message = f"{target} was not loaded before the call's deadline; it goes on loading."
            raise BackendError(Reason.DEADLINE, message, status=504, code="model_loading") from error
        place.answered[target.model] = asyncio.get_running_loop().time()

    @staticmethod
    async def _load(place: _Place, model: str) -> None:
        status, headers, raw = await place.wire.admin("/admin/load", orjson.dumps({"model": model}), Trace())
        if status != 200:  # noqa: PLR2004 - HTTP's OK
            error = wire_errors.from_response("mlx", status, headers, raw)
            busy = error.code in {"queue_full", "hub_busy"}
            error.reason = Reason.OVERLOADED if busy else Reason.MODEL_MISSING
            raise error

    async def ask_engines(self, path: str) -> list[dict[str, Any]]:
        """Return what every engine that runs says at a path, ``/health`` or ``/stats``; none is started for it."""
        if self._host is not None and not await self._host.answers():
            return []
        told = await asyncio.gather(
            *(place.wire.fetch(path, _REPORT_S) for place in self._places), return_exceptions=True
        )
        return [each for each in told if isinstance(each, dict)]

    async def order(self, action: str, model: str) -> dict[str, Any]:
        """Have the engine ``load``, ``unload`` or ``pull`` a model; return the model's state.

        Raises:
            BackendError: it cannot be done; the message names the remedy.
        """
        if self._host is not None:
            await self._host.ensure()
        place = self._place_for(model, None)
        body = orjson.dumps({"model": model})
        status, headers, raw = await place.wire.admin(f"/admin/{action}", body, Trace())
        if status != 200:  # noqa: PLR2004 - HTTP's OK
            raise wire_errors.from_response("mlx", status, headers, raw)
        place.answered.pop(model, None)
        state: dict[str, Any] = orjson.loads(raw)
        return state

    def _place_for(self, model: str, conversation: str | None) -> _Place:
        """Choose the engine with the least to do, a warm one before a cold one."""
        least = min(place.outstanding for place in self._places)
        near = [place for place in self._places if place.outstanding <= least + _AHEAD]
        home = self._homes.get(conversation) if conversation is not None else None
        return min(near, key=lambda place: (place is not home, model not in place.answered, place.outstanding))

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call."""
        place = self._enter(ask, target)
        try:
            whole = await place.wire.whole(ask, target, body, trace)
        except BackendError:
            place.answered.pop(target.model, None)
            raise
        finally:
            place.outstanding -= 1
        place.answered[target.model] = asyncio.get_running_loop().time()
        return whole

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> EventStream:
        """Send a streamed call."""
        place = self._enter(ask, target)
        try:
            stream = await place.wire.stream(ask, target, body, trace)
        except BaseException:
            place.answered.pop(target.model, None)
            place.outstanding -= 1
            raise
        place.answered[target.model] = asyncio.get_running_loop().time()
        return _Counted(stream, place)

    def _enter(self, ask: Ask, target: Target) -> _Place:
        conversation = _conversation(target.model, ask.body)
        place = self._place_for(target.model, conversation)
        place.outstanding += 1
        self._homes[conversation] = place
        self._homes.move_to_end(conversation)
        if len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        return place


def _conversation(model: str, body: dict[str, Any]) -> str:
    """Return what a conversation is known by: how it began."""
    messages = body.get("messages") or ()
    return f"{model}\n{str([message.get('content') for message in messages[:2]])[:500]}"


class _Counted:
    """A stream that tells its engine when it ends."""

    def __init__(self, stream: EventStream, place: _Place) -> None:
        self._stream = stream
        self._place: _Place | None = place

    @property
    def whole(self) -> bool:
        return self._stream.whole

    @property
    def malformed(self) -> int:
        return self._stream.malformed

    async def batch(self) -> Any:
        return await self._stream.batch()

    def finish(self) -> None:
        self._left()
        self._stream.finish()

    def close(self) -> None:
        self._left()
        self._stream.close()

    def _left(self) -> None:
        if self._place is not None:
            self._place.outstanding -= 1
            self._place = None
