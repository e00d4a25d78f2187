from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Reason
from app.guard.retry import RULES, Failure, Next, Policy, Retry, Stop, decide, outcome_of


def after(
    reason: Reason,
    *,
    tried: int = 1,
    retry_after_s: float | None = None,
    has_next: bool = True,
    remaining_s: float = 600.0,
    ages_s: tuple[float, ...] = (),
    draw: float = 0.5,
    policy: Policy | None = None,
) -> Retry | Next | Stop:
    return decide(
        Failure(reason, retry_after_s),
        tried=tried,
        ages_s=ages_s,
        remaining_s=remaining_s,
        has_next=has_next,
        rng=lambda: draw,
        policy=policy or Policy(),
    )


def test_every_reason_has_a_rule() -> None:
    assert set(RULES) == set(Reason)


# What is asked of one target in a row, with and without another candidate: the F rows of the failure table.
@pytest.mark.parametrize(
    ("reason", "with_next", "alone"),
    [
        (Reason.CONNECT, "RN", "RRS"),
        (Reason.RESET, "RN", "RRS"),
        (Reason.NO_CONTENT, "N", "S"),
        (Reason.SLOW_ANSWER, "N", "S"),
        (Reason.STALLED, "N", "S"),
        (Reason.CUT, "N", "RS"),
        (Reason.MALFORMED, "N", "RS"),
        (Reason.RATE_LIMIT, "RRN", "RRS"),
        (Reason.OVERLOADED, "RN", "RRS"),
        (Reason.SERVER_ERROR, "RN", "RRS"),
        (Reason.DEAD_KEY, "N", "S"),
        (Reason.MODEL_MISSING, "N", "S"),
        (Reason.CONTEXT_LENGTH, "N", "S"),
        (Reason.TOO_LARGE, "N", "S"),
        (Reason.CONTENT_FILTER, "S", "S"),
        (Reason.INVALID, "S", "S"),
        (Reason.DEADLINE, "S", "S"),
    ],
)
def test_sequence(reason: Reason, with_next: str, alone: str) -> None:
    for has_next, expected in ((True, with_next), (False, alone)):
        steps = [after(reason, tried=tried, has_next=has_next) for tried in range(1, len(expected) + 1)]
        assert "".join(type(step).__name__[0] for step in steps) == expected


@pytest.mark.parametrize(
    ("retry_after_s", "remaining_s", "expected"),
    [
        (2.0, 600.0, Retry(2.0)),
        (5.0, 600.0, Retry(5.0)),
        (0.0, 600.0, Retry(0.0)),
        (5.1, 600.0, Next()),
        (2.0, 2.0, Next()),
    ],
)
def test_retry_after_is_obeyed_if_short_and_in_time(
    retry_after_s: float, remaining_s: float, expected: Retry | Next
) -> None:
    assert after(Reason.RATE_LIMIT, retry_after_s=retry_after_s, remaining_s=remaining_s) == expected


def test_a_long_retry_after_with_nobody_left_is_the_callers_to_wait() -> None:
    assert after(Reason.RATE_LIMIT, retry_after_s=30.0, has_next=False) == Stop()


def test_the_limit_of_retry_after_is_a_setting() -> None:
    assert after(Reason.RATE_LIMIT, retry_after_s=30.0, policy=Policy(retry_after_limit_s=60)) == Retry(30.0)


@pytest.mark.parametrize(("tried", "draw", "delay_s"), [(1, 0.0, 0.0), (1, 0.5, 0.25), (2, 0.5, 0.5), (2, 1.0, 1.0)])
def test_full_jitter_doubles(tried: int, draw: float, delay_s: float) -> None:
    assert after(Reason.RATE_LIMIT, tried=tried, draw=draw) == Retry(delay_s)


def test_backoff_is_capped() -> None:
    assert after(Reason.RATE_LIMIT, draw=1.0, policy=Policy(base_s=100, cap_s=4)) == Retry(4.0)


def test_max_retries_bounds_every_rule() -> None:
    assert after(Reason.RATE_LIMIT, policy=Policy(max_retries=0)) == Next()
    assert after(Reason.RATE_LIMIT, tried=2, has_next=False, policy=Policy(max_retries=1)) == Stop()


def test_no_time_left_stops() -> None:
    assert after(Reason.CONNECT, remaining_s=0.0) == Stop()


def test_context_length_asks_only_a_larger_window() -> None:
    assert after(Reason.CONTEXT_LENGTH) == Next(larger_window=True)


def test_the_operator_may_let_filtered_calls_move_on() -> None:
    assert after(Reason.CONTENT_FILTER, policy=Policy(filtered_moves_on=True)) == Next()


def test_a_fifth_attempt_waits_until_the_burst_is_over() -> None:
    ages_s = (0.1, 0.4, 1.0, 2.0)
    assert after(Reason.RATE_LIMIT, ages_s=ages_s, draw=0.0) == Retry(1.0)
    assert after(Reason.RATE_LIMIT, ages_s=ages_s, draw=0.0, remaining_s=0.9) == Next()


@given(st.integers(0, 2**32), st.lists(st.sampled_from(list(Reason)), min_size=1, max_size=30), st.booleans())
def test_never_more_than_4_attempts_in_3_s_nor_3_at_one_target(
    seed: int, reasons: list[Reason], has_next: bool
) -> None:
    """One call whose candidates fail at once, one after the other, each for one reason, until it stops."""
    rng = random.Random(seed)
    now, starts, retried = 0.0, [0.0], [False]
    tried = 1
    for reason in reasons * 3:
        step = after(
            reason, tried=tried, has_next=has_next, ages_s=tuple(now - start for start in starts), draw=rng.random()
        )
        if isinstance(step, Stop):
            break
        tried = tried + 1 if isinstance(step, Retry) else 1
        now += step.delay_s if isinstance(step, Retry) else 0.0
        starts.append(now)
        retried.append(isinstance(step, Retry))
        assert tried <= 3
    for index in range(4, len(starts)):
        assert not retried[index] or starts[index] - starts[index - 4] >= 3.0 - 1e-9


def test_what_the_breaker_is_told() -> None:
    told = {outcome: {reason for reason in Reason if outcome_of(reason) == outcome} for outcome in ("dead", "ignored")}
    assert told["dead"] == {Reason.DEAD_KEY}
    assert told["ignored"] == {
        Reason.CONTEXT_LENGTH, Reason.TOO_LARGE, Reason.CONTENT_FILTER, Reason.INVALID, Reason.DEADLINE, Reason.COLD,
    }  # fmt: skip
