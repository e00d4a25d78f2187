"""A devbox and the way to it: absent, suspended, resuming, pulling, ready or failed; woken once for all who wait.

What to do is decided here; how Runloop and Ollama are asked stands behind two small protocols.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.config import DevboxOptions

State = Literal["absent", "suspended", "resuming", "pulling", "ready", "failed"]
Step = Literal["reach", "resume", "wait", "gone"]
_STEPS: dict[str, Step] = {"running": "reach", "suspended": "resume", "failure": "gone", "shutdown": "gone"}
"""By Runloop's status; all others (queued, provisioning, initializing, suspending, resuming) pass by themselves."""
SETTLED = ("running", "suspended", "failure", "shutdown")
_MOST_STEPS = 6
"""Suspending, suspended, resuming, running: a box that takes more turns than these goes in circles."""
_UNKNOWN_IDLE_S = 60.0
"""How soon a box whose idle time nobody knows may have gone to sleep."""
_PULSE_S = 60.0
_GRACE_S = 1.0
"""How long a call that would rather not wait still waits for a look at a box that was awake a moment ago."""
_REST_S = 5.0
_LONGEST_REST_S = 300.0
_BOX = ""
"""Failures by model; those of the box itself by this."""
_DOUBT_S = 5.0
"""A box that was looked at so lately is not looked at again for one call that was given up."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The way into a box: what its address is made of, and the token it asks for."""

    key: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BoxView:
    """What Runloop says of a box; ``idle_s`` is after how many idle seconds it suspends it, None for never."""

    id: str
    status: str
    created_ms: int = 0
    tunnel: Tunnel | None = None
    idle_s: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, how often in a row, and until when it rests on the box's clock."""

    error: BackendError
    count: int
    until: float


class Control(Protocol):
    """Runloop's control API. Every method raises BackendError."""

    async def view(self, box_id: str) -> BoxView:
        """Look at a box."""

    async def mine(self) -> list[BoxView]:
        """List the boxes that were created here, by any process, from the same blueprint, and still live."""

    async def create(self) -> BoxView:
        """Create a box."""

    async def resume(self, box_id: str) -> None:
        """Begin to resume a suspended box; harmless where another process was first."""

    async def settled(self, box_id: str, statuses: tuple[str, ...]) -> BoxView:
        """Wait until a box has one of these statuses."""

    async def shutdown(self, box_id: str) -> None:
        """End a box for good."""

    async def keep_alive(self, box_id: str) -> None:
        """Reset a box's idle timer."""

    async def close(self) -> None:
        """Close the connections."""


class Door(Protocol):
    """The Ollama inside of a box. Every method raises BackendError."""

    async def open(self, view: BoxView) -> None:
        """Find the way in and wait until Ollama answers."""

    async def models(self) -> frozenset[str]:
        """List the models that are there."""

    async def pull(self, model: str, progress: Callable[[str], None]) -> None:
        """Download a model; ``progress`` is told e.g. ``41 %``."""

    async def load(self, model: str) -> None:
        """Load a model into memory."""


class BoxHook(Protocol):
    """Is told what becomes of boxes."""

    def box_state(self, backend: str, state: str) -> None:
        """Take note that a box is in another state."""

    def box_woken(self, backend: str, outcome: str, seconds: float) -> None:
        """Take note of one wake; ``outcome`` is ``ok`` or ``failed``."""


def next_step(status: str) -> Step:
    """Return what a box of this status needs."""
    return _STEPS.get(status, "wait")


def oldest(views: list[BoxView]) -> BoxView | None:
    """Return the box that all processes agree on where several were created at the same time."""
    return min(views, key=lambda view: (view.created_ms, view.id), default=None)


def rest_s(failures: int) -> float:
    """Return for how many seconds nothing is tried after so many failures in a row."""
    return min(_REST_S * 2.0 ** (failures - 1), _LONGEST_REST_S)


class Box:
    """One devbox, as this process knows it.

    Attributes:
        state, why: where it is, and what there is to say about that.
        known: the models that it was last seen to have.
    """

    def __init__(
        self,
        name: str,
        options: DevboxOptions,
        control: Control,
        door: Door,
        hook: BoxHook | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.state: State = "absent"
        self.why: str | None = "not asked for yet"
        self.known: frozenset[str] = frozenset()
        self._name, self._control, self._door, self._hook, self._clock = name, control, door, hook, clock
        self._lock = asyncio.Lock()
        self._wakes: dict[str, tuple[asyncio.Task[None], float]] = {}
        self._loaded: set[str] = set()
        self._id = options.devbox_id
        self._idle_s = _UNKNOWN_IDLE_S
        self._seen = self._looked = float("-inf")
        self._failures: dict[str, Failure] = {}
        self._busy = 0
        self._pulse: asyncio.Task[None] | None = None

    # -- what it is ----------------------------------------------------------------------------------------------------

    def shown(self) -> tuple[State, str | None]:
        """Return the state and what there is to say about it; nothing is asked for it."""
        idle_s = self._clock() - self._seen
        if self.state == "ready" and not self._busy and idle_s > self._idle_s:
            return "suspended", f"idle for {idle_s:.0f} s: Runloop has suspended it by now"
        return self.state, self.why

    def _become(self, state: State, why: str | None = None) -> None:
        self.why = why
        if state != self.state:
            self.state = state
            if self._hook is not None:
                self._hook.box_state(self._name, state)

    # -- waking --------------------------------------------------------------------------------------------------------

    async def prepare(self, model: str, deadline: float, *, pull: bool, alone: bool) -> None:
        """Return once the box is awake with this model loaded.

        Args:
            model: Ollama's name of it.
            deadline: on the event loop's clock.
            pull: whether it may be downloaded.
            alone: whether the call has nowhere else to go.

        Raises:
            BackendError: COLD, it is still waking and the call is better off elsewhere; DEADLINE; or why it cannot be.
        """
        if model in self._loaded and self._clock() - self._seen < self._idle_s / 2:
            return
        self._refuse(model, pull=pull)
        wake, began = self._waking(model, pull=pull)
        patience_s = self._patience_s(began, alone=alone)
        left_s = deadline - asyncio.get_running_loop().time()
        await asyncio.wait({wake}, timeout=max(0.0, min(patience_s, left_s)))
        if wake.cancelled():
            raise self._cold()  # the configuration changed under it
        if wake.done():
            error = wake.exception()
            if error is None:
                return
            raise _again(error) if isinstance(error, BackendError) else error
        if left_s <= patience_s:
            raise BackendError(Reason.DEADLINE, "The call's deadline has passed.", status=504, code="deadline_exceeded")
        raise self._cold()

    def _waking(self, model: str, *, pull: bool) -> tuple[asyncio.Task[None], float]:
        """Return the wake that is under way, or begin one; and since when."""
        found = self._wakes.get(model)
        if found is None:
            wake = asyncio.create_task(self._wake(model, pull=pull))
            found = self._wakes[model] = (wake, self._clock())
            wake.add_done_callback(lambda done: self._woken(model, done))
        return found

    def _patience_s(self, began: float, *, alone: bool) -> float:
        """Return how long a call waits; what came later does not begin to wait anew for a long download."""
        if alone:
            return self.options.wake_timeout_s
        if self.options.wait:
            return max(0.0, self.options.wake_timeout_s - (self._clock() - began))
        return _GRACE_S if self.shown()[0] == "ready" else 0.0

    def _refuse(self, model: str, *, pull: bool) -> None:
        """Raise what failed lately: a box that cannot be woken is not asked again and again."""
        for failure in (self._failures.get(_BOX), self._failures.get(model)):
            if failure is not None and self._clock() < failure.until:
                raise _again(failure.error)
        if not pull and self.known and not has(self.known, model):
            raise self._missing(model)

    def _cold(self) -> BackendError:
        state, why = self.shown()
        told = f"The devbox of {self._name} is still waking ({state}{f': {why}' if why else ''})."
        return BackendError(Reason.COLD, told, status=503, code="devbox_waking", retry_after_s=5.0)

    def _woken(self, model: str, wake: asyncio.Task[None]) -> None:
        del self._wakes[model]
        if not wake.cancelled():
            wake.exception()  # whoever waited was told; nobody has to have waited

    async def _wake(self, model: str, *, pull: bool) -> None:
        began = self._clock()
        slept = self.state != "ready"
        outcome = "failed"
        try:
            await self._up()
            await self._have(model, pull=pull)
            outcome = "ok"
        finally:
            if self._hook is not None and (slept or self.state != "ready"):
                self._hook.box_woken(self._name, outcome, self._clock() - began)
        self._loaded.add(model)
        self._failures.pop(model, None)
        self._seen = self._clock()
        self._become("ready")

    def _fail(self, what: str, error: BackendError) -> None:
        before = self._failures.get(what)
        count = before.count + 1 if before is not None else 1
        self._failures[what] = Failure(error, count, self._clock() + rest_s(count))
        self._become("failed", error.message)

    async def _up(self) -> None:
        """See that the box runs and that its Ollama answers; once for all models."""
        async with self._lock:
            if self._clock() - self._looked < min(_DOUBT_S, self._idle_s / 2):
                return
            try:
                async with asyncio.timeout(self.options.wake_timeout_s):
                    await self._reach()
            except TimeoutError as error:
                message = f"The devbox of {self._name} was not ready within {self.options.wake_timeout_s:g} s."
                late = BackendError(Reason.NOT_READY, message, status=503, code="devbox_late")
                self._fail(_BOX, late)
                raise late from error
            except BackendError as error:
                self._fail(_BOX, error)
                raise
            self._looked = self._clock()
            self._failures.pop(_BOX, None)

    async def _reach(self) -> None:
        view = await self._running(await self._find())
        self._id, self._idle_s = view.id, float(view.idle_s or _UNKNOWN_IDLE_S)
        await self._door.open(view)

    async def _running(self, view: BoxView) -> BoxView:
        for _ in range(_MOST_STEPS):
            step = next_step(view.status)
            if step == "reach":
                return view
            if step == "gone":
                raise self._gone(view)
            self._asleep(view)
            if step == "resume":
                await self._control.resume(view.id)
                view = await self._control.settled(view.id, ("running", "failure", "shutdown"))
            else:
                view = await self._control.settled(view.id, SETTLED)
        raise self._gone(view)

    def _asleep(self, view: BoxView) -> None:
        self._loaded.clear()
        if view.status in {"suspended", "suspending"} and self.state == "ready":
            self._become("suspended")
        self._become("resuming", view.status)

    async def _find(self) -> BoxView:
        """Return the box that the configuration names, or the one that was created here, or a new one."""
        if self.options.devbox_id:
            return await self._control.view(self.options.devbox_id)
        found = oldest(await self._control.mine())
        if found is not None:
            return found
        self._become("resuming", "creating a devbox")
        made = await self._control.create()
        chosen = oldest([*await self._control.mine(), made]) or made
        if chosen.id != made.id:  # another process was first
            await self._control.shutdown(made.id)
        return chosen

    def _gone(self, view: BoxView) -> BackendError:
        because = f" ({view.why})" if view.why else ""
        remedy = (
            "Set RUNLOOP_DEVBOX_ID to another devbox, or to nothing and QWEN_OLLAMA_BLUEPRINT_ID to a blueprint."
            if self.options.devbox_id
            else f"Look at the build log of the blueprint {self.options.blueprint_id} and at the devbox's log."
        )
        message = f"Runloop's devbox {view.id} is in the status {view.status}{because}. {remedy}"
        return BackendError(Reason.NOT_READY, message, status=503, code="devbox_gone")

    async def _have(self, model: str, *, pull: bool) -> None:
        """See that a model is on the box and in its memory."""
        self.known = await self._door.models()
        if not pull and not has(self.known, model):
            self._become("ready")
            raise self._missing(model)
        self.enter()
        try:
            if not has(self.known, model):
                self._become("pulling", model)
                await self._door.pull(model, lambda told: self._become("pulling", f"{model} {told}"))
                self.known |= {model}
            await self._door.load(model)
        except BackendError as error:
            self._fail(model, error)
            raise
        finally:
            self.leave(well=False)

    def _missing(self, model: str) -> BackendError:
        message = f"{model} is not on the devbox of {self._name}; a model that a role names is downloaded."
        return BackendError(Reason.MODEL_MISSING, message, status=404, code="model_not_found")

    # -- use -----------------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Take note that a call begins: while there are any, the box is kept from falling asleep."""
        self._busy += 1
        if self._pulse is None:
            self._pulse = asyncio.create_task(self._beat())

    def leave(self, *, well: bool) -> None:
        """Take note that a call has ended; ``well``: the box has answered it to the end."""
        self._busy -= 1
        if well:
            self._seen = self._clock()
        if not self._busy and self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    async def _beat(self) -> None:
        """Keep the box awake under long answers: whether an open connection counts as use is not documented."""
        while True:
            await asyncio.sleep(min(_PULSE_S, self._idle_s / 3))
            try:
                await self._control.keep_alive(self._id)
            except BackendError:
                self.doubt()

    def doubt(self, *, sure: bool = False) -> None:
        """Look at the box again before the next call; ``sure``: however lately that was done."""
        if sure:
            self._looked = float("-inf")
        if self._clock() - self._looked > _DOUBT_S:
            self._loaded.clear()

    async def close(self) -> None:
        """Stop waking, and close the connections."""
        tasks = [*(wake for wake, _ in self._wakes.values()), *([self._pulse] if self._pulse else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._control.close()


def has(known: frozenset[str], model: str) -> bool:
    """Whether Ollama has a model: a name without a tag means ``:latest``."""
    return model in known or (":" not in model and f"{model}:latest" in known)


def _again(error: BackendError) -> BackendError:
    """Return a copy: one call's error is never another's."""
    return BackendError(error.reason, error.message, status=error.status, type=error.type, code=error.code)
