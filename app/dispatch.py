"""From a plan to a committed answer: the candidates in order, each with its permit, its slot and its retries."""

from __future__ import annotations

import asyncio
import random
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

from app.backend.catalog import schema_as_taken
from app.backend.engine_host import ENGINE_LOST, ENGINE_UNAVAILABLE
from app.errors import BackendError, Reason, SluiceError
from app.guard.breaker import Refusal
from app.guard.gate import Full
from app.guard.retry import Failure, Next, Policy, Retry, decide, outcome_of, pace_s
from app.hold import Hold, Opened, cut, late
from app.patience import Until
from app.route import known
from app.trace import Attempt, Usage
from app.usage import read_usage
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.backend.base import Backend, Whole
    from app.backend.registry import Backends
    from app.call import Ask, Plan, Target
    from app.config import BackendConfig
    from app.guard.lanes import Lane, Lanes
    from app.settings import Settings
    from app.trace import Trace
    from app.transcript import Transcript

T = TypeVar("T")
_FORMAT = re.compile(r"response.?format|json.?schema|structured.?output", re.IGNORECASE)
"""How backends name what they refuse where they take no schema."""
_MOST_HELD = 10_000
"""Events of a stream that bring no content and are held back until its commit; no backend sends a hundred."""
_CHARS_PER_TOKEN = 4
"""Of English text, about, for backends that tell no usage: OpenAI's rule of thumb."""
_PROBE_S = 20.0
"""A probe that is still under way after this lets the next one start: a healed target is to be back within 30 s."""
SHOWN = {Reason.NO_CONTENT: "timeout", Reason.SLOW_ANSWER: "timeout"}
"""How ``x-sluice-attempts`` says why an attempt lost; other reasons by their own name."""


class Walk:
    """One call's way through its candidates.

    Attributes:
        left: candidates that were not asked yet, in order.
    """

    def __init__(
        self, ask: Ask, plan: Plan, settings: Settings, backends: Backends, lanes: Lanes, trace: Trace
    ) -> None:
        self.ask = ask
        self.left = list(plan.candidates)
        self.trace = trace
        self.settings = settings
        self._backends = backends
        self._lanes = lanes
        self._began = asyncio.get_running_loop().time()
        self._starts: list[float] = []
        self._errors: list[SluiceError] = []
        self._policy = Policy(max_retries=settings.retries, retry_after_limit_s=settings.retry_after_limit_s)

    def config(self, target: Target) -> BackendConfig:
        """Return the configuration of a target's backend."""
        return self.settings.backend_configs[target.backend]

    def lane(self, target: Target) -> Lane:
        """Return a target's lane."""
        return self._lanes.of(self.config(target), target)

    def remaining_s(self) -> float:
        """Return the seconds until the call's deadline."""
        return self.ask.deadline - asyncio.get_running_loop().time()

    def deadline(self, target: Target) -> float:
        """Return the call's deadline, or the target's own where that is sooner, on the event loop's clock."""
        return min(self.ask.deadline, self._began + self.config(target).limits.deadline_s)

    # -- candidates ----------------------------------------------------------------------------------------------------

    async def first(self, attempt: Callable[[Hold], Awaitable[T]]) -> T:
        """Try candidate after candidate; return what the first good attempt gives.

        Raises:
            SluiceError: none was good; the first real error of a backend.
        """
        while self.left:
            found = await self._at(self.left.pop(0), attempt)
            if found is not None:
                return found
        raise self.error()

    async def _at(self, target: Target, attempt: Callable[[Hold], Awaitable[T]]) -> T | None:
        """Try one target, again where the failure allows it; None means: the next one."""
        lane = self.lane(target)
        tried = 0
        while True:
            hold = await self.enter(lane)
            if hold is None:
                return None
            tried += 1
            try:
                return await attempt(hold)
            except BackendError as error:
                self.lost(hold, error)
                delay_s = self._next_step(target, error, tried)
            except asyncio.CancelledError:  # the caller left; the backend has read the prompt
                hold.settle("ignored")
                self.tried(hold, "abandoned", Usage(self.trace.prompt_estimate(), estimated=True))
                raise
            except BaseException:
                hold.settle("ignored")
                raise
            if delay_s is None:
                return None
            await asyncio.sleep(delay_s)
            self.trace.stage("retry")

    async def enter(self, lane: Lane) -> Hold | None:
        """Get the breaker's permit and a slot; None where the lane is out of use or full."""
        permit = lane.breaker.admit(min(max(self.remaining_s(), 0.0), _PROBE_S))
        if isinstance(permit, Refusal):
            self._skip(lane, "open" if permit.state != "dead" else "dead_key", _resting(lane, permit))
            return None
        try:
            await self._pace()
            slot = await lane.gate.enter(self.ask.deadline, background=self.ask.background)
        except Full as full:
            permit.report("ignored")
            self._skip(lane, "full", full)
            return None
        except BaseException:
            permit.report("ignored")
            raise
        self.trace.stage("queue")
        self._starts.append(time.monotonic())
        return Hold(lane, permit, slot)

    async def _pace(self) -> None:
        """Wait until one more attempt of this call may start, at whatever target: a chain is no reason to hammer.

        Raises:
            BackendError: DEADLINE, the call's time would be up before.
        """
        delay_s = pace_s(self._ages_s(), self._policy)
        if delay_s >= self.remaining_s():
            raise self.error() if self._errors else late()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
            self.trace.stage("retry")

    def _ages_s(self) -> list[float]:
        now = time.monotonic()
        return [now - start for start in self._starts]

    def _skip(self, lane: Lane, why: str, error: SluiceError) -> None:
        self.trace.attempts.append(Attempt(lane.target, why, sent=False, purpose=self.ask.purpose))
        self._errors.append(error)

    def lost(self, hold: Hold, error: BackendError, usage: Transcript | None = None) -> None:
        """Write down a failed attempt, and tell the breaker."""
        outcome = "ignored" if error.code == ENGINE_LOST else outcome_of(error.reason)
        hold.settle(outcome, error.reason, error.status)
        self._starts[-1] = time.monotonic()  # the backend saw it begin later than we did, by a handshake at least
        if self.ask.sub is not None and error.reason is Reason.INVALID and _FORMAT.search(error.message):
            hold.lane.refuses_format = True
        if outcome != "ignored":
            hold.lane.last_error = _kept(error)
        spent = usage.usage(self.trace.prompt_estimate()) if usage is not None and usage.contents else None
        self.tried(hold, SHOWN.get(error.reason, str(error.reason)), spent)
        self.trace.stage("retry")
        self._errors.insert(sum(1 for each in self._errors if isinstance(each, BackendError)), error)

    def _next_step(self, target: Target, error: BackendError, tried: int) -> float | None:
        """Return the seconds to wait before the same target is asked again, or None for the next candidate.

        Raises:
            BackendError: nobody else is to be asked.
        """
        if error.reason is Reason.CONTEXT_LENGTH:
            self.left = [each for each in self.left if self._larger(each, target)]
        if error.code == ENGINE_UNAVAILABLE and self.left:
            return None  # another candidate is sooner than an engine that has to wait before it starts again
        step = decide(
            Failure(error.reason, error.retry_after_s),
            tried=tried,
            ages_s=self._ages_s(),
            remaining_s=self.remaining_s(),
            has_next=bool(self.left),
            rng=random.random,
            policy=self._policy,
        )
        if isinstance(step, Retry):
            return step.delay_s
        if isinstance(step, Next):
            return None
        raise self.error()

    def _larger(self, other: Target, than: Target) -> bool:
        """Whether another target may take a prompt that was too long; another model of unknown size may."""
        mine, others = self.window(than), self.window(other)
        if mine is None or others is None:
            return other.model != than.model
        return others > mine

    def window(self, target: Target) -> int | None:
        """Return a target's context window in tokens, where it is known."""
        return self.config(target).context_window or known.context_window(target)

    def error(self) -> SluiceError:
        """Return what the caller is told: the first real error of a backend, with the shortest wait that any named."""
        error = self._errors[0]
        waits = [each.retry_after_s for each in self._errors if each.retry_after_s]
        may_pass = error.status >= 429  # noqa: PLR2004 - the client errors below it will not
        error.retry_after_s = min(waits, default=None) if may_pass else None
        error.final = any(attempt.sent for attempt in self.trace.attempts)
        return error

    # -- attempts ------------------------------------------------------------------------------------------------------

    async def whole(self, hold: Hold) -> Answer:
        """Make one attempt at a plain answer."""
        target = hold.lane.target
        backend = await self.prepared(target)
        try:
            with Until(self.deadline(target)):
                whole = await backend.whole(self.ask, target, self._body(hold.lane), self.trace)
        except TimeoutError as error:
            if self.remaining_s() <= 0:
                raise late() from error
            limit_s = self.config(target).limits.deadline_s
            message = f"{target} gave no whole answer within {limit_s:g} s of the call."
            raise BackendError(Reason.SLOW_ANSWER, message, status=504) from error
        if self.ask.endpoint == "chat":
            _check_whole(target, whole.body)
        hold.settle("ok")
        usage = read_usage(whole.body.get("usage")) or self._counted(whole.body)
        self.tried(hold, "ok", usage)
        return Answer(target, whole, usage)

    def _body(self, lane: Lane) -> dict[str, Any]:
        """Return the body for a lane: a task names its schema only where it is taken."""
        if self.ask.sub is None:
            return self.ask.body
        dialect = self.config(lane.target).dialect
        return schema_as_taken(self.ask.body, lane.target, dialect, refused=lane.refuses_format)

    async def prepared(self, target: Target) -> Backend:
        """Return a target's backend, once it says that the target is ready."""
        backend = self._backends.of(self.config(target))
        if not backend.always_ready:
            try:
                await backend.prepare(target, self.deadline(target), alone=not self.left)
            except BackendError as error:
                if error.reason is Reason.DEADLINE and self.remaining_s() > 0:
                    error.reason = Reason.NOT_READY  # the target's own limit: another candidate has time left
                raise
            self.trace.stage("load")
        return backend

    async def begin(self, hold: Hold, body: dict[str, Any]) -> Opened:
        """Begin a stream and pull it to its commit point, the first content."""
        target = hold.lane.target
        limit_s = self.config(target).limits.first_content_s
        loop = asyncio.get_running_loop()
        opened: Opened | None = None
        backend = await self.prepared(target)
        try:
            while True:
                try:
                    with Until(min(loop.time() + limit_s, self.deadline(target))):
                        if opened is None:
                            stream = await backend.stream(self.ask, target, body, self.trace)
                            opened = Opened(hold, stream, self.config(target).limits.idle_s, self.deadline(target))
                        return await self._commit(opened)
                except TimeoutError as error:
                    if opened is None or not opened.stream.waits or loop.time() >= self.deadline(target):
                        raise self._silent(target) from error
        except BaseException:
            if opened is not None:
                opened.stream.close()
            raise

    def _silent(self, target: Target) -> BackendError:
        if self.remaining_s() <= 0:
            return late()
        limit_s = self.config(target).limits.first_content_s
        return BackendError(Reason.NO_CONTENT, f"{target} gave no content within {limit_s:g} s.", status=504)

    async def _commit(self, opened: Opened) -> Opened:
        script = opened.script
        while not script.committed:
            events = await opened.stream.batch()
            if not events:
                raise cut(opened.hold.lane.target)
            opened.held += opened.read(events)
            if len(opened.held) > _MOST_HELD:
                raise BackendError(Reason.MALFORMED, f"{opened.hold.lane.target} sends events without content.")
        self.trace.stage("first_token")
        return opened

    def tried(self, hold: Hold, result: str, usage: Usage | None) -> None:
        """Write down an attempt that has ended, and what it used."""
        self.trace.attempts.append(Attempt(hold.lane.target, result, hold.ms(), usage, purpose=self.ask.purpose))

    def _counted(self, body: dict[str, Any]) -> Usage:
        """Return an estimate of what a plain answer took whose backend does not tell."""
        messages = (choice.get("message") or {} for choice in body.get("choices") or ())
        chars = sum(len(text) for each in messages if isinstance(text := each.get("content"), str))
        return Usage(self.trace.prompt_estimate(), -(-chars // _CHARS_PER_TOKEN), estimated=True)


@value
class Answer:
    """A plain answer, committed; ``usage`` is what it took, where that was read."""

    target: Target
    whole: Whole
    usage: Usage | None = None


def _check_whole(target: Target, body: dict[str, Any]) -> None:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(_is_choice(each) for each in choices):
        raise BackendError(Reason.MALFORMED, f"{target} answered without choices.")
    if not all(choice.get("finish_reason") for choice in choices):
        raise cut(target)


def _is_choice(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("message"), dict | None)


def _kept(error: BackendError) -> SluiceError:
    """Return what a lane keeps of an error: without its traceback, which holds on to the whole call."""
    return SluiceError(error.message, status=error.status, type=error.type, code=error.code, fault=error.fault)


def _resting(lane: Lane, refusal: Refusal) -> SluiceError:
    """Tell why a lane is out of use, with the real error that closed it."""
    told = lane.last_error
    because = f" Its last error was: {told.message}" if told is not None else ""
    return SluiceError(
        f"{lane.target} is out of use ({refusal.why.replace('_', ' ')}).{because}",
        status=503,
        type=told.type if told is not None else None,
        code=(told.code if told is not None else None) or "target_out_of_use",
        fault="backend_open",
        retry_after_s=refusal.retry_after_s,
    )
