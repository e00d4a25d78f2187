"""A circuit breaker per lane: it stops asking a target that fails, and finds out with few probes when it is well again.

Two steps: ``admit()`` gives a Permit or a Refusal, and the Permit is told once, when the stream is complete, how the
call went. A permit carries the generation in which it was given; a report from before a change of state counts for
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from app.guard.window import Window

State = Literal["closed", "open", "half_open", "dead"]
Outcome = Literal["ok", "failed", "ignored", "dead"]
Forced = Literal["open", "closed"]
Event = Literal[
    "tripped",
    "probe",
    "ok",
    "failed",
    "lost",
    "dead",
    "forgiven",
    "pardoned",
    "forced_open",
    "forced_closed",
    "unforced",
]
Clock = Callable[[], float]
Why = Literal["resting", "probing", "elsewhere", "forced_open", "dead"]
Hook = Callable[[State, State, Event], None]

# What an event makes of a state. A pair that is not here cannot happen. `dead` probes without leaving `dead`: a key is
# only as good as the answer it gets.
_NEXT: dict[tuple[State, Event], State] = {
    ("closed", "tripped"): "open",
    ("closed", "dead"): "dead",
    ("open", "probe"): "half_open",
    ("open", "ok"): "closed",
    ("open", "forgiven"): "closed",
    ("open", "pardoned"): "closed",
    ("open", "dead"): "dead",
    ("half_open", "ok"): "closed",
    ("half_open", "failed"): "open",
    ("half_open", "lost"): "open",
    ("half_open", "dead"): "dead",
    ("half_open", "pardoned"): "closed",
    ("dead", "probe"): "dead",
    ("dead", "ok"): "closed",
    ("dead", "failed"): "dead",
    ("dead", "lost"): "dead",
    ("dead", "dead"): "dead",
    ("dead", "pardoned"): "closed",
}
# An operator's word holds in any state and starts a clean slate.
_FORCED: dict[Event, State] = {"forced_open": "open", "forced_closed": "closed", "unforced": "closed"}
# What another's finding means here: (own state, the other's) -> event. Everything else is already known.
_ADOPTED: dict[tuple[State, State], Event] = {
    ("closed", "open"): "tripped",
    ("closed", "dead"): "dead",
    ("open", "dead"): "dead",
    ("half_open", "dead"): "dead",
    ("open", "closed"): "pardoned",
    ("half_open", "closed"): "pardoned",
    ("dead", "closed"): "pardoned",
}
_BADNESS: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2, "dead": 3}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a lane opens and how it comes back; all times in seconds.

    Attributes:
        window_s: how far back calls count. More than 50 % failures in 5 minutes is the gateway's stated requirement.
        buckets: the window moves in steps of window_s / buckets (10 s), so it covers 290 to 300 s.
        min_calls: fewer calls say nothing.
        ratio: opens ABOVE this share of failures.
        first_probe_s: rest before the first probe: about the time a process needs to restart.
        probe_every_s: least time between the starts of two probes. With a lane asked for often, a healed target is
            back within this time; it leaves a third of the 30 s allowed for the probe's own answer.
        probe_limit_s: a probe not reported after this gives its turn back, where ``admit`` was told no limit; the
            default deadline of a call.
        forgive_s: an open lane that nobody asked for this long is closed outright.
        dead_probe_every_s: rest between two probes of a lane whose key was refused.
    """

    window_s: float = 300.0
    buckets: int = 30
    min_calls: int = 5
    ratio: float = 0.5
    first_probe_s: float = 5.0
    probe_every_s: float = 20.0
    probe_limit_s: float = 600.0
    forgive_s: float = 1800.0
    dead_probe_every_s: float = 300.0


DEFAULTS = Thresholds()


class LastFailure(NamedTuple):
    """The last failure of a lane, so that the real error can be told when every lane is open. ``at`` is wall time."""

    reason: str
    status: int | None
    at: float


class Refusal(NamedTuple):
    """Why a lane was not asked.

    Attributes:
        state: the lane's state.
        why: ``resting`` (too early for a probe), ``probing`` (another call probes), ``elsewhere`` (another worker or
            host has the probe), ``forced_open`` or ``dead``.
        retry_after_s: when asking again may help; None where only an operator can tell.
        last_failure: what closed the lane, as the backend said it.
    """

    state: State
    why: Why
    retry_after_s: float | None
    last_failure: LastFailure | None


class Permit:
    """Leave to ask a lane once. Report its end exactly once; a second report is nothing, so ``finally`` may report too.

    Attributes:
        generation: of the state in which it was given.
        probe: whether this call decides if the lane comes back.
    """

    __slots__ = ("_breaker", "generation", "probe")

    def __init__(self, breaker: Breaker, generation: int, probe: bool) -> None:
        self._breaker: Breaker | None = breaker
        self.generation = generation
        self.probe = probe

    def report(self, outcome: Outcome, reason: str = "", status: int | None = None) -> None:
        """Say how the call went, at its completion.

        Args:
            outcome: ``ok``; ``failed`` (the backend's fault); ``ignored`` (the caller's own fault, or it left: a probe
                gives its turn back at once); ``dead`` (the key was refused).
            reason: of a failure, from a closed set; kept as the lane's last failure.
            status: the backend's HTTP status, if it gave one.
        """
        breaker = self._breaker
        if breaker is not None:
            self._breaker = None
            breaker._settle(self, outcome, reason, status)  # noqa: SLF001 - two halves of one thing


class Breaker:
    """The breaker of one lane. Synchronous and for one thread, as an event loop is.

    Attributes:
        hooks: called as ``hook(old, new, event)`` at each change of state; ``event`` is from a closed set.
        turn: asked before a probe starts, where the probe is shared with other workers or hosts; False keeps it back.
        elsewhere: (failures, calls) that others saw on this lane in their windows; they count when this one decides.
        forced: the operator's word, or None.
    """

    __slots__ = (
        "_at_opening", "_clock", "_generation", "_last_failure", "_limits", "_opened_at", "_probe_at", "_probe_until",
        "_spell", "_state", "_touched_at", "_wall", "_window", "elsewhere", "forced", "hooks", "turn",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        thresholds: Thresholds = DEFAULTS,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._limits = thresholds
        self.hooks = list(hooks)
        self.turn: Callable[[], bool] | None = None
        self.elsewhere = (0, 0)
        self.forced: Forced | None = None
        self._state: State = "closed"
        self._generation = 0
        self._spell = 0  # the generation in which the lane last went out of use, or its key died
        self._window = Window(thresholds.window_s / thresholds.buckets, thresholds.buckets, clock())
        self._at_opening = (0, 0)
        self._opened_at: float | None = None
        self._touched_at = self._probe_at = 0.0
        self._probe_until: float | None = None  # not None exactly while a probe is under way
        self._last_failure: LastFailure | None = None

    # -- asking ------------------------------------------------------------------------------------------------------

    def admit(self, limit_s: float | None = None) -> Permit | Refusal:
        """Ask whether a call may go out now.

        Args:
            limit_s: after this long, in seconds, a probe that was never reported is taken as lost: the call's own
                deadline. None: ``Thresholds.probe_limit_s``.
        """
        if self._state == "closed":
            return Permit(self, self._generation, probe=False)
        return self._admit_out_of_use(limit_s)

    def _admit_out_of_use(self, limit_s: float | None) -> Permit | Refusal:
        now = self._clock()
        self._age(now)
        why = self._refused(now)
        if why is not None:
            wait_s = None if why == "forced_open" else max(self._probe_at - now, 0.0)
            return Refusal(self._state, why, wait_s, self._last_failure)
        probe = self._state != "closed"
        if probe:
            self._start_probe(now, limit_s)
        return Permit(self, self._generation, probe)

    def _refused(self, now: float) -> Why | None:
        if self.forced == "open":
            return "forced_open"
        if self._state == "closed":
            return None
        if self._probe_until is not None:
            return "probing"
        if now < self._probe_at:
            return "dead" if self._state == "dead" else "resting"
        if self.turn is not None and not self.turn():
            return "elsewhere"
        return None

    def _start_probe(self, now: float, limit_s: float | None) -> None:
        every_s = self._limits.dead_probe_every_s if self._state == "dead" else self._limits.probe_every_s
        self._move("probe", now)
        self._probe_at = now + every_s
        self._probe_until = now + (self._limits.probe_limit_s if limit_s is None else limit_s)

    def _age(self, now: float) -> None:
        """Apply what time alone does: a vanished probe is lost, an untouched open lane forgiven."""
        if self._probe_until is not None and now >= self._probe_until:
            touched_at = self._touched_at
            self._lose_probe(now)
            self._touched_at = touched_at  # its holder vanished: nobody touched the lane since it started
        if self._state == "open" and self.forced is None and now - self._touched_at >= self._limits.forgive_s:
            self._move("forgiven", now)

    # -- being told --------------------------------------------------------------------------------------------------

    def _settle(self, permit: Permit, outcome: Outcome, reason: str, status: int | None) -> None:
        if outcome in {"failed", "dead"}:
            self._last_failure = LastFailure(reason, status, self._wall())
        if permit.generation != self._generation:
            if permit.probe and outcome == "ok" and permit.generation > self._spell:
                self._late_probe()
            return
        if self._probe_until is not None:
            self._settle_probe(outcome)
        elif outcome == "dead":
            self._die()
        elif outcome != "ignored":
            self._count(outcome == "failed")

    def _late_probe(self) -> None:
        """Believe a probe that succeeded after its turn was given on: a long answer is as good a sign.

        Only where it began in the present spell out of use: of what broke after that it knows nothing.
        """
        if self.forced is None and self._state != "closed":
            self._move("ok", self._clock())

    def _count(self, failed: bool) -> None:
        now = self._clock()
        self._window.add(now, failed)
        # Only a failure can open a lane: one that has just answered well stays in use.
        if failed and self.forced is None and self._over():
            self._move("tripped", now)

    def _over(self) -> bool:
        failures, calls = self._window.failures + self.elsewhere[0], self._window.calls + self.elsewhere[1]
        return calls >= self._limits.min_calls and failures > self._limits.ratio * calls

    def _settle_probe(self, outcome: Outcome) -> None:
        now = self._clock()
        if outcome == "ignored":
            self._lose_probe(now)
        else:
            self._move(outcome, now)

    def _lose_probe(self, now: float) -> None:
        self._move("lost", now)
        self._probe_at = now

    def _die(self) -> None:
        if self.forced is None:
            self._move("dead", self._clock())

    # -- by another's word ---------------------------------------------------------------------------------------------

    def force(self, forced: Forced | None) -> None:
        """Obey the operator: ``open`` refuses everything, ``closed`` admits everything, None is automatic again.

        Each change starts a clean slate; saying the same again changes nothing.
        """
        if forced == self.forced:
            return
        self.forced = forced
        self._move(
            "unforced" if forced is None else "forced_open" if forced == "open" else "forced_closed", self._clock()
        )

    def forgive_key(self) -> None:
        """Take a dead lane back into use because the configuration changed."""
        if self._state == "dead":
            self._move("pardoned", self._clock())

    def adopt(self, state: State, reason: str = "", status: int | None = None) -> None:
        """Believe what another worker or host found out about this lane; a forced lane believes nobody.

        Args:
            state: ``open``, ``dead`` or ``closed``.
            reason: the other's last failure.
            status: its HTTP status.
        """
        event = _ADOPTED.get((self.state, state))
        if self.forced is not None or event is None:
            return
        if reason:
            self._last_failure = LastFailure(reason, status, self._wall())
        self._move(event, self._clock())

    # -- changing ------------------------------------------------------------------------------------------------------

    def _move(self, event: Event, now: float) -> None:
        old = self._state
        self._state = new = _FORCED.get(event) or _NEXT[old, event]
        self._generation += 1
        self._probe_until = None
        self._touched_at = now
        if old == "closed" or event in _FORCED or (event == "dead" and old != "dead"):
            self._spell = self._generation
        if old == "closed" or event in _FORCED:
            self._leave_closed(now)
        if event == "dead" and old != "dead":
            self._probe_at = now + self._limits.dead_probe_every_s
        if new == "closed":
            self._opened_at = None
            self._window.clear(now)
        if new != old:
            for hook in self.hooks:
                hook(old, new, event)

    def _leave_closed(self, now: float) -> None:
        self._at_opening = (self._window.failures, self._window.calls)
        self._window.clear(now)
        self.elsewhere = (0, 0)
        self._opened_at = now
        self._probe_at = now + self._limits.first_probe_s

    # -- showing -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state that the next call would find."""
        self._age(self._clock())
        return self._state

    @property
    def last_failure(self) -> LastFailure | None:
        """The last failure that was reported, whether it counted or not."""
        return self._last_failure

    @property
    def probe_in_s(self) -> float:
        """Seconds until the next probe may start; 0 where it may start now."""
        return max(self._probe_at - self._clock(), 0.0)

    @property
    def probe_due(self) -> bool:
        """Whether the next call would probe, if it has the turn."""
        return self.forced is None and self.state != "closed" and not self.probing and self.probe_in_s <= 0

    @property
    def probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probe_until is not None

    def counts(self) -> tuple[int, int]:
        """Return (failures, calls) in the window now."""
        self._window.advance(self._clock())
        return self._window.failures, self._window.calls

    def snapshot(self) -> dict[str, Any]:
        """Return the lane as ``GET /admin/breakers`` shows it; times are seconds since 1970 (UTC).

        ``failures`` and ``calls`` are the window's while closed, and what opened the lane otherwise.
        """
        state = self.state
        failures, calls = self.counts() if state == "closed" else self._at_opening
        wall = self._wall() - self._clock()
        shown = state != "closed" and self.forced is None
        return {
            "state": state,
            "failures": failures,
            "calls": calls,
            "opened_at": None if self._opened_at is None else round(self._opened_at + wall, 3),
            "next_probe_at": round(self._probe_at + wall, 3) if shown else None,
            "forced": self.forced,
            "last_failure": None if self._last_failure is None else self._last_failure._asdict(),
        }


_ADDED = ("failures", "calls", "in_use", "waiting", "slots")
"""What is added up over the workers; the last three are a lane's, not its breaker's."""


def merge(snapshots: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Join what several workers show of one lane: the worst state, with all counts added.

    Raises:
        ValueError: there is no snapshot.
    """
    several = list(snapshots)
    worst = max(several, key=lambda one: (one["forced"] is not None, _BADNESS[one["state"]]))
    return worst | {name: sum(one[name] for one in several) for name in _ADDED if name in worst}
