"""Qwen on Runloop: an ordinary Ollama behind a devbox that has to be woken.

The control API (app.backend.runloop_api) wakes the box and opens the tunnel; answers travel through the tunnel like
those of any other backend.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.backend.ollama import OllamaBackend
from app.backend.ollama_api import OllamaApi
from app.backend.runloop_api import SERVE, RunloopControl
from app.backend.runloop_box import Box
from app.backend.runloop_execute import ROOT, ExecuteClient
from app.config import OllamaOptions
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.backend.base import Event, EventStream, Take, Whole
    from app.backend.http import Client
    from app.backend.runloop_box import BoxHook, BoxView, Tunnel
    from app.call import Ask, Target
    from app.config import BackendConfig, DevboxOptions
    from app.trace import Trace

_PORT = 11434
_TUNNEL_HEADER = "x-runloop-tunnel-authorization"
_BLAMELESS = {Reason.INVALID, Reason.CONTEXT_LENGTH, Reason.CONTENT_FILTER, Reason.TOO_LARGE, Reason.RATE_LIMIT}
"""Failures that say nothing about the box."""
_LOOK_S = 0.25
_START_AFTER_S = 3.0
"""A box that runs for so long without an Ollama that answers has no launch command for it."""


class Inside:
    """The way to the Ollama in a box: see app.backend.runloop_box.Door.

    Attributes:
        address: base URL, headers and client for the wire; None before the box was first reached.
    """

    def __init__(self, options: DevboxOptions, ollama: OllamaOptions, control: RunloopControl, client: Client) -> None:
        self._options, self._ollama, self._control, self._client = options, ollama, control, client
        self.address: tuple[str, dict[str, str], Client] | None = None

    def _api(self) -> OllamaApi:
        if self.address is None:
            raise BackendError(Reason.NOT_READY, "The devbox has not been reached yet.", status=503)
        root, headers, client = self.address
        return OllamaApi(client, root, headers, "The Ollama on the devbox")

    async def open(self, view: BoxView) -> None:
        """Find the way in and wait, as long as the caller does, until Ollama answers; start it where nobody did."""
        if not self._options.tunnel:
            self._enter((ROOT, {}, ExecuteClient(self._control, view.id)))
            await self._answers(view)
            return
        tunnel = view.tunnel or await self._control.tunnel(view.id)
        for last in (False, False, True):
            self._through(tunnel)
            try:
                await self._answers(view)
            except _RefusedError:
                if last:
                    raise
                tunnel = await self._renewed(view.id, tunnel)
            else:
                return

    async def _renewed(self, box_id: str, refused: Tunnel) -> Tunnel:
        """Return the tunnel that another process has opened meanwhile, else a new one."""
        found = (await self._control.view(box_id)).tunnel
        return found if found is not None and found != refused else await self._control.tunnel(box_id)

    def _through(self, tunnel: Tunnel) -> None:
        root = self._options.tunnel_url.replace("{port}", str(_PORT)).replace("{key}", tunnel.key)
        self._enter((root, {_TUNNEL_HEADER: f"Bearer {tunnel.token}"}, self._client))

    def _enter(self, address: tuple[str, dict[str, str], Client]) -> None:
        if self.address is None or self.address[:2] != address[:2] or not self._options.tunnel:
            self.address = address

    async def _answers(self, view: BoxView) -> None:
        loop = asyncio.get_running_loop()
        start_at = loop.time() + _START_AFTER_S
        while True:
            try:
                await self.models()
            except BackendError as error:
                if error.reason in {Reason.DEAD_KEY, Reason.MODEL_MISSING}:  # 401, 403; 404: there is no such tunnel
                    raise _RefusedError(view.id, error) from error
            else:
                return
            if loop.time() > start_at:
                start_at = float("inf")
                await self._control.execute(view.id, SERVE)
            await asyncio.sleep(_LOOK_S)

    async def models(self) -> frozenset[str]:
        """List the models that are there."""
        return await self._api().models()

    async def pull(self, model: str, progress: Callable[[str], None]) -> None:
        """Download a model."""
        await self._api().pull(model, progress)

    async def load(self, model: str) -> None:
        """Load a model into memory."""
        await self._api().load(model, self._ollama.keep_alive, self._ollama.load_s)


class _RefusedError(BackendError):
    """The tunnel wants another token, or Ollama another Host."""

    def __init__(self, box_id: str, error: BackendError) -> None:
        super().__init__(
            Reason.NOT_READY,
            f"The tunnel to the devbox {box_id} answered {error.status}: it or its token was refused, or the Ollama "
            "on the devbox listens on 127.0.0.1 alone; start it with OLLAMA_HOST=0.0.0.0, or set RUNLOOP_MODE=execute.",
            status=503,
            code="tunnel_refused",
        )


class RunloopBackend:
    """A devbox's Ollama; woken by ``prepare``, spoken to like any Ollama."""

    always_ready = False

    def __init__(self, config: BackendConfig, client: Client, max_answer_bytes: int, box: Box, inside: Inside) -> None:
        self.config = config
        self.box = box
        self._client, self._max_answer_bytes, self._inside = client, max_answer_bytes, inside
        self._wire: OllamaBackend | None = None
        self._wired: tuple[str, dict[str, str], Client] | None = None

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:
        """Wake the box, once for all who wait, with the target's model loaded.

        Raises:
            BackendError: see Box.prepare.
        """
        pull = target.model in self.config.pulls
        await self.box.prepare(target.model, deadline, pull=pull, alone=alone)

    def _ollama(self) -> OllamaBackend:
        address = self._inside.address
        if address is None:
            raise BackendError(Reason.NOT_READY, "The devbox has not been woken.", status=503)
        if self._wire is None or self._wired is not address:
            root, headers, client = address
            config = replace(self.config, base_url=f"{root}/v1", api_key="")
            self._wire = OllamaBackend(config, client, self._max_answer_bytes, headers, loads=False)
            self._wired = address
        return self._wire

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call and return the answer.

        Raises:
            BackendError: with the reason.
        """
        wire = self._ollama()
        well = False
        self.box.enter()
        try:
            answer = await wire.whole(ask, target, body, trace)
            well = True
        except BackendError as error:
            raise self.judged(error) from error
        finally:
            self.box.leave(well=well)
        return answer

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> BoxStream:
        """Send a streamed call and return once it begins.

        Raises:
            BackendError: with the reason.
        """
        wire = self._ollama()
        self.box.enter()
        try:
            return BoxStream(await wire.stream(ask, target, body, trace), self)
        except BackendError as error:
            self.box.leave(well=False)
            raise self.judged(error) from error
        except BaseException:
            self.box.leave(well=False)
            raise

    def judged(self, error: BackendError) -> BackendError:
        """Doubt the box where an error may be its own; a refusal by the tunnel is no word about a key of ours."""
        if error.reason in _BLAMELESS:
            return error
        self.box.doubt(sure=True)
        if error.reason is not Reason.DEAD_KEY:
            return error
        message = f"The tunnel to the devbox refused the call ({error.status}): {error.message}"
        return BackendError(Reason.CONNECT, message, status=503, code="tunnel_refused")


class BoxStream:
    """A stream out of a box: the box is kept awake until it ends."""

    def __init__(self, stream: EventStream, backend: RunloopBackend) -> None:
        self._stream, self._backend = stream, backend
        self._open = True

    @property
    def waits(self) -> bool:
        """Whether the backend's newest word is that it has not begun."""
        return self._stream.waits

    @property
    def malformed(self) -> int:
        """How many events could not be read and were skipped."""
        return self._stream.malformed

    @property
    def whole(self) -> bool:
        """Whether the backend said that the stream is complete."""
        return self._stream.whole

    async def batch(self) -> list[Event]:
        """Return every event that has arrived; an empty list at the end.

        Raises:
            BackendError: with the reason.
        """
        try:
            return await self._stream.batch()
        except BackendError as error:
            raise self._backend.judged(error) from error

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive to ``take``."""
        self._stream.pass_on(take)

    def finish(self) -> None:
        """Give the connection back."""
        self._stream.finish()
        self._leave(well=True)

    def close(self) -> None:
        """Close the connection; the answer was not whole."""
        self._stream.close()
        self._leave(well=self._stream.whole)

    def _leave(self, *, well: bool) -> None:
        if self._open:
            self._open = False
            self._backend.box.leave(well=well)
            if not well:
                self._backend.box.doubt()


class Boxes:
    """Every devbox in use, kept while the configuration of anything else changes."""

    def __init__(self, client: Client, hook: BoxHook | None) -> None:
        self._client, self._hook = client, hook
        self._kept: tuple[tuple[DevboxOptions, OllamaOptions], Box, Inside] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, config: BackendConfig, max_answer_bytes: int) -> RunloopBackend:
        """Return the backend of a configuration that has a devbox."""
        if config.devbox is None:
            raise ValueError(f"{config.name} has no devbox")
        key = (config.devbox, config.ollama or OllamaOptions())
        if self._kept is None or self._kept[0] != key:
            self._retire()
            control = RunloopControl(key[0])
            inside = Inside(*key, control, self._client)
            self._kept = (key, Box(config.name, key[0], control, inside, self._hook), inside)
        return RunloopBackend(config, self._client, max_answer_bytes, self._kept[1], self._kept[2])

    def _retire(self) -> None:
        if self._kept is not None:
            task = asyncio.create_task(self._kept[1].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Stop waking, and close every connection."""
        self._retire()
        self._kept = None
        await asyncio.gather(*self._closing)
