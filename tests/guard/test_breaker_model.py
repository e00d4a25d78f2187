"""The breaker beside a model that keeps every event in a list and knows no cleverness."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from app.guard.breaker import Breaker, Forced, Outcome, Permit, State
from tests.guard.clock import Clock

PROBE_LIMIT_S = 50.0


class Model:
    """The specification in the plainest words."""

    def __init__(self) -> None:
        self.state: State = "closed"
        self.forced: Forced | None = None
        self.events: list[tuple[int, bool]] = []
        self.epoch = 0
        self.broke = 0
        self.started = 0.0
        self.probe_at = 0.0
        self.probe_until: float | None = None
        self.touched = 0.0

    def enter(self, state: State, now: float) -> None:
        if self.state == "closed" or state == "closed":
            self.events = []
            self.started = now
        self.epoch += 1
        if self.state == "closed" or (state == "dead" and self.state != "dead"):
            self.broke = self.epoch
        self.state = state
        self.probe_until = None
        self.touched = now

    def age(self, now: float) -> None:
        if self.probe_until is not None and now >= self.probe_until:
            touched = self.touched
            self.enter("dead" if self.state == "dead" else "open", now)
            self.probe_at, self.touched = now, touched
        if self.state == "open" and self.forced is None and now - self.touched >= 1800:
            self.enter("closed", now)

    def admit(self, now: float) -> tuple[int, bool] | None:
        self.age(now)
        if self.forced == "open":
            return None
        if self.state == "closed":
            return self.epoch, False
        if self.probe_until is not None or now < self.probe_at:
            return None
        dead = self.state == "dead"
        self.enter("dead" if dead else "half_open", now)
        self.probe_at = now + (300 if dead else 20)
        self.probe_until = now + PROBE_LIMIT_S
        return self.epoch, True

    def report(self, epoch: int, probe: bool, outcome: Outcome, now: float) -> None:
        if epoch != self.epoch:
            late = probe and outcome == "ok" and epoch > self.broke
            if late and self.forced is None and self.state != "closed":
                self.enter("closed", now)
            return
        if self.probe_until is not None:
            self.report_probe(outcome, now)
        elif outcome == "dead" and self.forced is None:
            self.enter("dead", now)
            self.probe_at = now + 300
        elif outcome in {"ok", "failed"}:
            self.count(outcome == "failed", now)

    def report_probe(self, outcome: Outcome, now: float) -> None:
        if outcome == "ok":
            self.enter("closed", now)
        elif outcome == "dead" and self.state != "dead":
            self.enter("dead", now)
            self.probe_at = now + 300
        else:
            self.enter("dead" if self.state == "dead" else "open", now)
            if outcome == "ignored":
                self.probe_at = now

    def bucket(self, now: float) -> int:
        return int((now - self.started) // 10)

    def window(self, now: float) -> list[bool]:
        return [failed for bucket, failed in self.events if bucket > self.bucket(now) - 30]

    def count(self, failed: bool, now: float) -> None:
        self.events.append((self.bucket(now), failed))
        window = self.window(now)
        if failed and self.forced is None and len(window) >= 5 and sum(window) > len(window) / 2:
            self.enter("open", now)
            self.probe_at = now + 5

    def force(self, forced: Forced | None, now: float) -> None:
        if forced == self.forced:
            return
        self.forced = forced
        self.enter("open" if forced == "open" else "closed", now)
        self.broke = self.epoch


class BreakerMachine(RuleBasedStateMachine):
    permits: ClassVar[Bundle[tuple[Permit, tuple[int, bool]]]] = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(0.0)
        self.breaker = Breaker(self.clock, self.clock)
        self.model = Model()

    @rule(target=permits, times=st.integers(1, 6))
    def admit(self, times: int) -> MultipleResults[tuple[Permit, tuple[int, bool]]]:
        given = []
        for _ in range(times):
            expected = self.model.admit(self.clock.now)
            actual = self.breaker.admit(PROBE_LIMIT_S)
            assert isinstance(actual, Permit) == (expected is not None)
            if isinstance(actual, Permit) and expected is not None:
                assert actual.probe == expected[1]
                given.append((actual, expected))
        return multiple(*given)

    @rule(permit=consumes(permits), outcome=st.sampled_from(["ok", "failed", "failed", "ignored", "dead"]))
    def report(self, permit: tuple[Permit, tuple[int, bool]], outcome: Outcome) -> None:
        self.model.report(*permit[1], outcome, self.clock.now)
        permit[0].report(outcome)

    @rule(times=st.integers(1, 6), outcome=st.sampled_from(["ok", "failed"]))
    def calls(self, times: int, outcome: Outcome) -> None:
        for _ in range(times):
            expected = self.model.admit(self.clock.now)
            actual = self.breaker.admit(PROBE_LIMIT_S)
            if isinstance(actual, Permit) and expected is not None:
                self.model.report(*expected, outcome, self.clock.now)
                actual.report(outcome)

    @rule(seconds=st.sampled_from([1, 4, 5, 9, 10, 15, 20, 49, 50, 100, 290, 300, 310, 1800]))
    def pass_s(self, seconds: int) -> None:
        self.clock.pass_s(seconds)

    @rule(forced=st.sampled_from(["open", "closed", None, None]))
    def force(self, forced: Forced | None) -> None:
        self.model.force(forced, self.clock.now)
        self.breaker.force(forced)

    @rule()
    def new_key(self) -> None:
        if self.model.state == "dead":
            self.model.enter("closed", self.clock.now)
        self.breaker.forgive_key()

    @invariant()
    def agree(self) -> None:
        self.model.age(self.clock.now)
        assert self.breaker.state == self.model.state
        if self.model.state == "closed":
            window = self.model.window(self.clock.now)
            assert self.breaker.counts() == (sum(window), len(window))


TestBreakerModel = BreakerMachine.TestCase
TestBreakerModel.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
