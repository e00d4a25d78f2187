from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from app.guard.breaker import Breaker, Event, Forced, Outcome, Permit, Refusal, State, Thresholds, merge
from tests.guard.clock import Clock


def wall() -> float:
    return 1_700_000_000.0


def state_of(breaker: Breaker) -> State:
    return breaker.state


def permit(breaker: Breaker, limit_s: float | None = None) -> Permit:
    given = breaker.admit(limit_s)
    assert isinstance(given, Permit), given
    return given


def refusal(breaker: Breaker) -> Refusal:
    given = breaker.admit()
    assert isinstance(given, Refusal)
    return given


def report(breaker: Breaker, outcome: Outcome, times: int = 1) -> None:
    for _ in range(times):
        permit(breaker).report(outcome, "server_error", 500)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, wall)


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    report(breaker, "failed", 5)
    assert state_of(breaker) == "open"
    return breaker


@pytest.fixture
def dead(breaker: Breaker) -> Breaker:
    permit(breaker).report("dead", "dead_key", 401)
    assert state_of(breaker) == "dead"
    return breaker


class TestOpening:
    @pytest.mark.parametrize(
        ("oks", "failures", "state"),
        [(0, 4, "closed"), (0, 5, "open"), (2, 3, "open"), (3, 3, "closed"), (3, 4, "open"), (50, 50, "closed")],
    )
    def test_more_than_half_of_at_least_five(self, breaker: Breaker, oks: int, failures: int, state: State) -> None:
        report(breaker, "ok", oks)
        report(breaker, "failed", failures)
        assert state_of(breaker) == state

    def test_a_success_never_opens_it(self, breaker: Breaker) -> None:
        report(breaker, "failed", 4)
        report(breaker, "ok")
        assert state_of(breaker) == "closed"
        report(breaker, "failed")
        assert state_of(breaker) == "open"

    def test_the_callers_own_fault_counts_for_nothing(self, breaker: Breaker) -> None:
        report(breaker, "ignored", 100)
        assert breaker.counts() == (0, 0)

    def test_failures_older_than_the_window_are_forgotten(self, breaker: Breaker, clock: Clock) -> None:
        report(breaker, "failed", 4)
        clock.pass_s(300)
        report(breaker, "failed", 4)
        assert state_of(breaker) == "closed"
        assert breaker.counts() == (4, 4)

    def test_failures_within_the_window_add_up(self, breaker: Breaker, clock: Clock) -> None:
        for _ in range(4):
            report(breaker, "failed")
            clock.pass_s(70)
        report(breaker, "failed")
        assert state_of(breaker) == "open"

    def test_what_others_saw_counts_too(self, breaker: Breaker) -> None:
        breaker.elsewhere = (4, 4)
        report(breaker, "failed")
        assert state_of(breaker) == "open"
        assert breaker.elsewhere == (0, 0)

    def test_a_second_report_of_one_permit_is_nothing(self, breaker: Breaker) -> None:
        once = permit(breaker)
        once.report("failed")
        once.report("failed")
        assert breaker.counts() == (1, 1)

    def test_reports_from_before_the_opening_count_for_nothing(self, breaker: Breaker, clock: Clock) -> None:
        late = [permit(breaker) for _ in range(20)]
        report(breaker, "failed", 5)
        for one in late[:10]:
            one.report("ok")
        assert state_of(breaker) == "open"
        clock.pass_s(5)
        report(breaker, "ok")
        for one in late[10:]:
            one.report("failed")
        assert state_of(breaker) == "closed"
        assert breaker.counts() == (0, 0)


class TestProbing:
    def test_first_probe_after_5_s_then_every_20_s(self, opened: Breaker, clock: Clock) -> None:
        started = []
        for _ in range(960):
            given = opened.admit()
            if isinstance(given, Permit):
                started.append(clock.now - 1000.0)
                given.report("failed")
            clock.pass_s(0.125)
        assert started == [5.0, 25.0, 45.0, 65.0, 85.0, 105.0]

    def test_refusal_says_when_and_why(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(2)
        refused = refusal(opened)
        assert (refused.state, refused.why, refused.retry_after_s) == ("open", "resting", 3.0)
        assert refused.last_failure == ("server_error", 500, wall())

    def test_one_probe_at_a_time(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        assert permit(opened).probe
        assert state_of(opened) == "half_open"
        clock.pass_s(100)
        assert refusal(opened).why == "probing"

    def test_a_good_probe_closes_and_clears(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        report(opened, "ok")
        assert state_of(opened) == "closed"
        report(opened, "failed", 4)
        assert state_of(opened) == "closed"

    def test_a_probe_whose_caller_left_gives_its_turn_back_at_once(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        permit(opened).report("ignored")
        assert state_of(opened) == "open"
        assert permit(opened).probe

    def test_a_vanished_probe_gives_its_turn_back_after_its_limit(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        vanished = permit(opened, limit_s=60)
        clock.pass_s(59)
        assert refusal(opened).why == "probing"
        clock.pass_s(1)
        second = permit(opened)
        vanished.report("failed")
        assert state_of(opened) == "half_open"
        second.report("ok")
        assert state_of(opened) == "closed"

    @pytest.mark.parametrize("second", ["under way", "failed", None])
    def test_a_late_success_of_a_probe_is_believed(self, opened: Breaker, clock: Clock, second: str | None) -> None:
        clock.pass_s(5)
        slow = permit(opened, limit_s=20)
        clock.pass_s(20)
        other = permit(opened) if second else None
        if other is not None and second == "failed":
            other.report("failed")
        slow.report("ok")
        assert state_of(opened) == "closed"
        if other is not None:
            other.report("failed")
        assert opened.counts() == (0, 0)

    def test_a_late_success_says_nothing_of_a_later_opening(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        slow = permit(opened, limit_s=20)
        clock.pass_s(20)
        report(opened, "ok")
        report(opened, "failed", 5)
        slow.report("ok")
        assert state_of(opened) == "open"

    def test_a_late_success_says_nothing_of_a_key_that_died_since(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        slow = permit(opened, limit_s=20)
        clock.pass_s(20)
        report(opened, "dead")
        slow.report("ok")
        assert state_of(opened) == "dead"

    def test_a_late_success_does_not_overrule_the_operator(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        slow = permit(opened, limit_s=20)
        clock.pass_s(20)
        opened.force("open")
        slow.report("ok")
        assert state_of(opened) == "open"

    def test_a_late_success_revives_a_dead_key(self, dead: Breaker, clock: Clock) -> None:
        clock.pass_s(300)
        slow = permit(dead, limit_s=20)
        clock.pass_s(20)
        permit(dead)
        slow.report("ok")
        assert state_of(dead) == "closed"

    def test_a_probe_waits_for_its_turn(self, opened: Breaker, clock: Clock) -> None:
        turns = iter([False, True])
        opened.turn = lambda: next(turns)
        clock.pass_s(5)
        assert opened.probe_due
        assert refusal(opened).why == "elsewhere"
        assert permit(opened).probe
        assert not opened.probe_due

    async def test_100_callers_at_once_send_exactly_one_probe(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        go = asyncio.Event()
        answer = asyncio.Event()
        refused = 0

        async def call() -> bool:
            nonlocal refused
            await go.wait()
            given = opened.admit()
            if isinstance(given, Refusal):
                refused += 1
                if refused == 99:
                    answer.set()
                return False
            await answer.wait()
            given.report("ok")
            return True

        tasks = [asyncio.create_task(call()) for _ in range(100)]
        go.set()
        assert sum(await asyncio.gather(*tasks)) == 1
        assert state_of(opened) == "closed"

    async def test_100_callers_that_leave_while_probing_lose_no_turn(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        probes = 0

        async def call() -> None:
            nonlocal probes
            given = opened.admit()
            if isinstance(given, Permit):
                probes += 1
                try:
                    await asyncio.Event().wait()
                finally:
                    given.report("ignored")

        for expected in range(1, 101):
            task = asyncio.create_task(call())
            await asyncio.sleep(0)
            assert probes == expected
            assert state_of(opened) == "half_open"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert state_of(opened) == "open"


class TestForgiveness:
    def test_an_untouched_open_lane_is_forgiven_after_30_minutes(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(1799)
        assert state_of(opened) == "open"
        clock.pass_s(1)
        assert not permit(opened).probe

    def test_a_failed_probe_starts_the_30_minutes_again(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(1700)
        report(opened, "failed")
        clock.pass_s(1700)
        assert state_of(opened) == "open"
        clock.pass_s(100)
        assert state_of(opened) == "closed"

    def test_a_vanished_probe_does_not(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        permit(opened, limit_s=60)
        clock.pass_s(1800)
        assert state_of(opened) == "closed"


class TestDeadKey:
    def test_refuses_until_the_configuration_changes(self, dead: Breaker, clock: Clock) -> None:
        clock.pass_s(299)
        refused = refusal(dead)
        assert (refused.state, refused.why, refused.retry_after_s) == ("dead", "dead", 1.0)
        assert refused.last_failure == ("dead_key", 401, wall())
        dead.forgive_key()
        assert not permit(dead).probe

    def test_a_probe_every_5_minutes_brings_it_back(self, dead: Breaker, clock: Clock) -> None:
        clock.pass_s(300)
        permit(dead).report("dead", "dead_key", 401)
        clock.pass_s(299)
        assert isinstance(dead.admit(), Refusal)
        clock.pass_s(1)
        last = permit(dead)
        assert last.probe
        assert state_of(dead) == "dead"
        last.report("ok")
        assert state_of(dead) == "closed"

    @pytest.mark.parametrize("outcome", ["failed", "dead"])
    def test_only_success_revives(self, dead: Breaker, clock: Clock, outcome: Outcome) -> None:
        clock.pass_s(300)
        permit(dead).report(outcome)
        assert state_of(dead) == "dead"

    def test_is_never_forgiven_by_time(self, dead: Breaker, clock: Clock) -> None:
        clock.pass_s(86_400)
        assert state_of(dead) == "dead"

    def test_a_probe_can_find_the_key_dead(self, opened: Breaker, clock: Clock) -> None:
        clock.pass_s(5)
        permit(opened).report("dead")
        assert state_of(opened) == "dead"
        assert refusal(opened).retry_after_s == 300

    def test_forgiving_a_key_leaves_an_open_lane_alone(self, opened: Breaker) -> None:
        opened.forgive_key()
        assert state_of(opened) == "open"


class TestForced:
    def test_open_refuses_for_ever(self, breaker: Breaker, clock: Clock) -> None:
        breaker.force("open")
        clock.pass_s(100_000)
        refused = refusal(breaker)
        assert (refused.why, refused.retry_after_s) == ("forced_open", None)
        assert not breaker.probe_due

    def test_closed_admits_whatever_happens(self, opened: Breaker) -> None:
        opened.force("closed")
        report(opened, "failed", 50)
        report(opened, "dead")
        opened.adopt("open")
        assert state_of(opened) == "closed"
        assert opened.counts() == (50, 50)

    @pytest.mark.parametrize("forced", ["open", "closed"])
    def test_auto_starts_with_a_clean_slate(self, opened: Breaker, forced: Forced) -> None:
        opened.force(forced)
        opened.force(None)
        report(opened, "failed", 4)
        assert state_of(opened) == "closed"
        report(opened, "failed")
        assert state_of(opened) == "open"

    def test_the_same_word_again_changes_nothing(self, opened: Breaker) -> None:
        opened.force(None)
        assert state_of(opened) == "open"


class TestAdopting:
    @pytest.mark.parametrize("state", ["open", "dead"])
    def test_believes_others(self, breaker: Breaker, state: State) -> None:
        breaker.adopt(state, "reset", None)
        assert state_of(breaker) == state
        assert refusal(breaker).last_failure == ("reset", None, wall())
        breaker.adopt("closed")
        assert state_of(breaker) == "closed"

    @pytest.mark.parametrize("state", ["open", "half_open", "closed", "dead"])
    def test_old_news_change_nothing(self, breaker: Breaker, clock: Clock, state: State) -> None:
        if state in {"open", "half_open"}:
            report(breaker, "failed", 5)
        if state == "half_open":
            clock.pass_s(5)
            permit(breaker)
        if state == "dead":
            permit(breaker).report("dead")
        before = breaker.snapshot()
        breaker.adopt("open" if state == "half_open" else state)
        assert breaker.snapshot() == before


class TestShowing:
    def test_snapshot(self, breaker: Breaker) -> None:
        report(breaker, "ok", 2)
        assert breaker.snapshot() == {
            "state": "closed", "failures": 0, "calls": 2, "opened_at": None, "next_probe_at": None,
            "forced": None, "last_failure": None,
        }  # fmt: skip
        report(breaker, "failed", 3)
        shown = breaker.snapshot()
        assert (shown["state"], shown["failures"], shown["calls"]) == ("open", 3, 5)
        assert (shown["opened_at"], shown["next_probe_at"]) == (wall(), wall() + 5)
        assert shown["last_failure"] == {"reason": "server_error", "status": 500, "at": wall()}

    def test_hooks_hear_each_change_once(self, clock: Clock) -> None:
        heard: list[tuple[State, State, Event]] = []
        breaker = Breaker(clock, wall, hooks=[lambda *change: heard.append(change)])
        report(breaker, "failed", 5)
        clock.pass_s(5)
        report(breaker, "failed")
        clock.pass_s(20)
        report(breaker, "ok")
        assert heard == [
            ("closed", "open", "tripped"),
            ("open", "half_open", "probe"),
            ("half_open", "open", "failed"),
            ("open", "half_open", "probe"),
            ("half_open", "closed", "ok"),
        ]

    def test_merging_workers_takes_the_worst_and_adds_the_counts(self, clock: Clock) -> None:
        workers = [Breaker(clock, wall) for _ in range(3)]
        report(workers[0], "ok", 4)
        report(workers[1], "failed", 5)
        merged = merge(worker.snapshot() for worker in workers)
        assert (merged["state"], merged["failures"], merged["calls"]) == ("open", 5, 9)


def deep_size(thing: Any) -> int:
    """Bytes of an object and of all that belongs to it alone."""
    seen: dict[int, int] = {}
    todo = [thing]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen[id(one)] = sys.getsizeof(one)
        todo += gc.get_referents(one)
    return sum(seen.values())


def test_a_million_events_take_no_memory(clock: Clock) -> None:
    breaker = Breaker(clock, wall, Thresholds(ratio=1.0))
    report(breaker, "ok", 1000)
    before = deep_size(breaker)
    assert before > 500
    for number in range(1_000_000):
        breaker.admit().report("ok" if number & 1 else "failed")  # type: ignore[union-attr]
        clock.now += 0.001
    failures, calls = breaker.counts()
    assert 290_000 <= calls <= 300_000
    assert failures == pytest.approx(calls / 2, rel=0.01)
    # Counts grow from one to more digits (28 to 32 bytes each); the number of objects does not.
    assert deep_size(breaker) <= before + 2 * 30 * 32
