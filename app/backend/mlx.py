"""Local MLX models: the engine of this host, or engines elsewhere, behind the ordinary OpenAI wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

from app.backend import wire_errors
from app.backend.engine_host import ENGINE_LOST, unavailable
from app.errors import BackendError, Reason
from app.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.backend.base import Event, EventStream, Take, Whole
    from app.backend.engine_host import EngineHost
    from app.backend.openai_http import HttpEventStream, OpenAIBackend
    from app.call import Ask, Target
    from app.config import BackendConfig

_LOST = {Reason.CONNECT, Reason.RESET, Reason.CUT}
_FRESH_S = 20.0
"""A model that answered this lately is taken as loaded; asking the engine costs a round trip."""
_AHEAD = 4
"""A warm engine is preferred while it has at most this many more calls under way than the idlest."""
_REST_S = 5.0
"""An engine elsewhere whose connection broke is left alone for this long while another one serves."""
_REPORT_S = 1.0
_REMEMBERED = 10_000
_CANNOT_HAVE = {401, 403, 404, 422, 507}
"""Statuses by which an engine says that a model cannot be had; a caller's own mistake is a 400."""
_BUSY = {"queue_full", "hub_busy"}


class _Place:
    """One engine: its wire, and what is known to be warm there."""

    def __init__(self, wire: OpenAIBackend) -> None:
        self.wire = wire
        self.outstanding = 0
        self.answered: dict[str, float] = {}
        self.down_until = 0.0
        self._loads: dict[str, asyncio.Event] = {}

    def up(self) -> bool:
        return self.down_until <= _now()

    def warm(self, model: str) -> bool:
        return _now() - self.answered.get(model, -_FRESH_S) < _FRESH_S

    async def loaded(self, model: str) -> bool:
        """Return whether a model is warm, once the load of it that another call may have begun has ended."""
        if (begun := self._loads.get(model)) is not None:
            await begun.wait()
        return self.warm(model)

    @contextlib.contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Let the calls that come meanwhile wait: 32 streams of an engine that died load its model once."""
        ended = asyncio.Event()
        first = self._loads.setdefault(model, ended) is ended
        try:
            yield
        finally:
            ended.set()
            if first:
                del self._loads[model]

    async def load(self, model: str) -> None:
        """Load a model here; it takes as long as it takes."""
        await self.order("load", model)
        self.answered[model] = _now()

    async def order(self, action: str, model: str) -> dict[str, Any]:
        self.answered.pop(model, None)
        body = orjson.dumps({"model": model})
        status, headers, raw = await self.wire.admin(f"/admin/{action}", body, Trace())
        if status != 200:  # noqa: PLR2004 - HTTP's OK
            raise _of_model(wire_errors.from_response("mlx", status, headers, raw))
        state: dict[str, Any] = orjson.loads(raw)
        return state


class MlxBackend:
    """The backend ``mlx``."""

    always_ready = False

    def __init__(self, config: BackendConfig, wires: list[OpenAIBackend], host: EngineHost | None) -> None:
        """Take the wires to the engines.

        Args:
            config: the backend's.
            wires: one for each engine.
            host: the process on this machine, or None where the engines are elsewhere.
        """
        self.config = config
        self._places = [_Place(wire) for wire in wires]
        self._host = host
        self._homes: OrderedDict[str, _Place] = OrderedDict()

    # -- models --------------------------------------------------------------------------------------------------------

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:  # noqa: ARG002 - it always waits
        """Start the engine and load the model; that takes as long as it takes, up to the call's deadline.

        Raises:
            BackendError: the model cannot be had; the message names the remedy.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._prepare(target.model)
        except TimeoutError as error:
            message = f"{target} was not loaded before the call's deadline; it goes on loading."
            raise BackendError(Reason.DEADLINE, message, status=504, code="model_loading") from error

    async def _prepare(self, model: str) -> None:
        while True:
            place = self._place_for(model)
            if await place.loaded(model):
                return
            with place.loading(model):
                if self._host is not None:
                    await self._host.ensure()
                try:
                    await place.load(model)
                except BackendError as error:
                    if error.reason not in _LOST:
                        raise
                    if not self._left(place):
                        raise await self._told(error) from error

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

        Of several engines all unload, and the one with the least to do loads or pulls.

        Raises:
            BackendError: it cannot be done; the message names the remedy.
        """
        if self._host is not None:
            await self._host.ensure()
        places = self._places if action == "unload" else [self._place_for(model)]
        return [await place.order(action, model) for place in places][-1]

    # -- engines -------------------------------------------------------------------------------------------------------

    def _place_for(self, model: str, home: _Place | None = None) -> _Place:
        """Choose the engine with the least to do, a warm one before a cold one, of those that can be reached."""
        if len(self._places) == 1:
            return self._places[0]
        up = [place for place in self._places if place.up()] or self._places
        least = min(place.outstanding for place in up)
        near = [place for place in up if place.outstanding <= least + _AHEAD]
        return min(near, key=lambda place: (not place.warm(model), place is not home, place.outstanding))

    def _left(self, place: _Place) -> bool:
        """Note that an engine cannot be reached; return whether another one can."""
        place.answered.clear()
        if self._host is None:
            place.down_until = _now() + _REST_S
        return any(each.up() for each in self._places if each is not place)

    async def _told(self, error: BackendError) -> BackendError:
        """Say why the engine of this host is gone, where that is known; it is never started again for this."""
        why = await self._host.why_gone() if self._host is not None else None
        if why is None:
            return error
        return unavailable(f"The local engine ended: {why}.", 1.0)

    async def failed(self, place: _Place, model: str, error: BackendError) -> BackendError:
        """Return what an error in a call means."""
        place.answered.pop(model, None)
        if error.reason not in _LOST:
            return _of_model(error)
        if not self._left(place) and self._host is None:
            return error
        why = await self._host.why_gone() if self._host is not None else error.message
        told = f"The local engine ended in the middle of the call: {why or error.message}."
        # As if cut, wherever it broke: the next candidate is sooner than an engine that starts again.
        return BackendError(Reason.CUT, told, status=503, code=ENGINE_LOST, retry_after_s=1.0)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call."""
        place = self._enter(ask, target)
        try:
            whole = await place.wire.whole(ask, target, body, trace)
        except BackendError as error:
            raise await self.failed(place, target.model, error) from error
        finally:
            place.outstanding -= 1
        place.answered[target.model] = _now()
        return whole

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> EventStream:
        """Send a streamed call."""
        place = self._enter(ask, target)
        try:
            stream = await place.wire.stream(ask, target, body, trace)
        except BaseException as error:
            place.outstanding -= 1
            if isinstance(error, BackendError):
                raise await self.failed(place, target.model, error) from error
            raise
        return _EngineStream(stream, self, place, target.model)

    def _enter(self, ask: Ask, target: Target) -> _Place:
        if len(self._places) == 1:
            place = self._places[0]
        else:
            place = self._at_home(_conversation(target.model, ask.body), target.model)
        place.outstanding += 1
        return place

    def _at_home(self, conversation: str, model: str) -> _Place:
        """Choose the engine that has read the conversation before, if it is as good as the others."""
        place = self._place_for(model, self._homes.get(conversation))
        self._homes[conversation] = place
        self._homes.move_to_end(conversation)
        if len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        return place


def _now() -> float:
    return asyncio.get_running_loop().time()


def _of_model(error: BackendError) -> BackendError:
    """Tell a model that cannot be had from a key that is wrong and from a call that is."""
    if error.code in _BUSY:
        error.reason = Reason.OVERLOADED
    elif error.status in _CANNOT_HAVE and error.code != "invalid_api_key":
        error.reason = Reason.MODEL_MISSING
    return error


def _conversation(model: str, body: dict[str, Any]) -> str:
    """Return what a conversation is known by: how it began."""
    messages = body.get("messages") or ()
    return f"{model}\n{[str(message.get('content'))[:200] for message in messages[:2]]}"


class _EngineStream:
    """A stream that tells its engine when it ends, and why it broke."""

    def __init__(self, stream: HttpEventStream, backend: MlxBackend, place: _Place, model: str) -> None:
        self._stream = stream
        self._backend = backend
        self._model = model
        self._place = place
        self._counted = True

    @property
    def whole(self) -> bool:
        return self._stream.whole

    @property
    def malformed(self) -> int:
        return self._stream.malformed

    @property
    def waits(self) -> bool:
        """Whether the engine's newest comment says that the model is loading, or others come first."""
        return self._stream.comment not in {b"", b"working"}

    async def batch(self) -> list[Event]:
        try:
            events = await self._stream.batch()
        except BackendError as error:
            raise await self._backend.failed(self._place, self._model, error) from error
        if not events and not self._stream.whole:
            cut = BackendError(Reason.CUT, "its answer has no end")
            raise await self._backend.failed(self._place, self._model, cut)
        self._place.answered[self._model] = _now()
        return events

    def pass_on(self, take: Take) -> None:
        def noted(event: Event) -> bool:
            taken = take(event)
            if taken:
                self._place.answered[self._model] = _now()
            return taken

        self._stream.pass_on(noted)

    def finish(self) -> None:
        self._leave()
        self._stream.finish()

    def close(self) -> None:
        self._leave()
        self._stream.close()

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._place.outstanding -= 1
