"""What follows a failed attempt: the same target again, the next candidate, or the error. Pure, driven by a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from app.errors import Reason
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@value
class Failure:
    """One failed attempt: the reason and, where the backend said so, how many seconds to wait."""

    reason: Reason
    retry_after_s: float | None = None


class Retry(NamedTuple):
    """Ask the same target again after ``delay_s`` seconds."""

    delay_s: float


class Next(NamedTuple):
    """Ask the next candidate at once; with ``larger_window`` only one whose context window is larger."""

    larger_window: bool = False


class Stop(NamedTuple):
    """Give the caller the error."""


class Rule(NamedTuple):
    """What one reason allows.

    Attributes:
        retries: how often the same target may be asked again in one call while another candidate is left.
        alone: the same where none is left.
        moves_on: whether another candidate may be asked.
        counts: how it is reported to the breaker: ``failed``, ``dead``, or ``ignored``.
        larger_window: the other candidate must have a larger context window.
    """

    retries: int
    alone: int
    moves_on: bool
    counts: Literal["failed", "dead", "ignored"]
    larger_window: bool = False


RULES: dict[Reason, Rule] = {
    # Never reached the model: cheap to repeat, but another candidate is sooner.
    Reason.CONNECT: Rule(1, 2, True, "failed"),
    Reason.RESET: Rule(1, 2, True, "failed"),
    # It took the call and kept silent: asking again would wait as long again, and may be billed twice.
    Reason.NO_CONTENT: Rule(0, 0, True, "failed"),
    Reason.SLOW_ANSWER: Rule(0, 0, True, "failed"),
    Reason.STALLED: Rule(0, 0, True, "failed"),
    # Broken in the middle; without another candidate a second try is the caller's only chance.
    Reason.CUT: Rule(0, 1, True, "failed"),
    Reason.MALFORMED: Rule(0, 1, True, "failed"),
    # Asked for patience.
    Reason.RATE_LIMIT: Rule(2, 2, True, "failed"),
    Reason.OVERLOADED: Rule(1, 2, True, "failed"),
    Reason.SERVER_ERROR: Rule(1, 2, True, "failed"),
    # Repeating cannot help here, another backend can. A missing model is the target's fault, not the caller's.
    Reason.DEAD_KEY: Rule(0, 0, True, "dead"),
    Reason.MODEL_MISSING: Rule(0, 0, True, "failed"),
    # Waking goes on by itself; it says nothing against the target. One that cannot be woken rests by itself, too.
    Reason.COLD: Rule(0, 0, True, "ignored"),
    Reason.NOT_READY: Rule(0, 0, True, "failed"),
    Reason.CONTEXT_LENGTH: Rule(0, 0, True, "ignored", larger_window=True),
    Reason.TOO_LARGE: Rule(0, 0, True, "ignored"),
    # The caller's own doing: it would be told the same everywhere. Shopping for a model without the filter is the
    # operator's choice (Policy.filtered_moves_on).
    Reason.CONTENT_FILTER: Rule(0, 0, False, "ignored"),
    Reason.INVALID: Rule(0, 0, False, "ignored"),
    # The limit may be the caller's own and very short: it says nothing about the target.
    Reason.DEADLINE: Rule(0, 0, False, "ignored"),
}


@value
class Policy:
    """The settings of retrying; times in seconds.

    Attributes:
        max_retries: on one target in one call, whatever the reason.
        retry_after_limit_s: a longer wait that a backend asks for is not waited: the next candidate is asked.
        base_s: of the backoff; OpenAI's own clients start at 0.5 s.
        cap_s: of the backoff: no longer than a wait that a backend asks for.
        burst: at most this many attempts of one call start in any ``burst_s``.
        burst_s: see ``burst``.
        filtered_moves_on: whether a call stopped by a content filter may be tried elsewhere.
    """

    max_retries: int = 2
    retry_after_limit_s: float = 5.0
    base_s: float = 0.5
    cap_s: float = 5.0
    burst: int = 4
    burst_s: float = 3.0
    filtered_moves_on: bool = False


DEFAULTS = Policy()


def outcome_of(reason: Reason) -> Literal["failed", "dead", "ignored"]:
    """Return how a failure for this reason is reported to the breaker: ``failed``, ``dead`` or ``ignored``."""
    return RULES[reason].counts


def decide(
    failure: Failure,
    *,
    tried: int,
    ages_s: Sequence[float],
    remaining_s: float,
    has_next: bool,
    rng: Callable[[], float],
    policy: Policy = DEFAULTS,
) -> Retry | Next | Stop:
    """Decide what follows a failed attempt.

    Args:
        failure: what happened.
        tried: how often this target was asked in this call, this attempt included.
        ages_s: for each attempt of the whole call, at any target, how many seconds ago it started.
        remaining_s: seconds until the call's deadline.
        has_next: whether another candidate is left. Those of a larger window are the caller's to find: Next says so.
        rng: uniform in [0, 1).
        policy: see Policy.
    """
    if remaining_s <= 0:
        return Stop()
    rule = RULES[failure.reason]
    delay_s = _delay_s(failure, rule.retries if has_next else rule.alone, tried, rng, policy)
    if delay_s is not None:
        delay_s = max(delay_s, pace_s(ages_s, policy))
        if delay_s < remaining_s:
            return Retry(delay_s)
    if has_next and _moves_on(failure.reason, policy):
        return Next(rule.larger_window)
    return Stop()


def _moves_on(reason: Reason, policy: Policy) -> bool:
    return RULES[reason].moves_on or (reason is Reason.CONTENT_FILTER and policy.filtered_moves_on)


def _delay_s(failure: Failure, retries: int, tried: int, rng: Callable[[], float], policy: Policy) -> float | None:
    """Return the wait before the same target is asked again, or None if it is not to be asked."""
    if tried > min(retries, policy.max_retries):
        return None
    if failure.retry_after_s is not None:
        return failure.retry_after_s if failure.retry_after_s <= policy.retry_after_limit_s else None
    # "Full jitter" of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015):
    # sleep = random between 0 and min(cap, base * 2 ** retry). Both waits together are under 3 x base (1.5 s).
    return rng() * min(policy.cap_s, policy.base_s * 2.0 ** (tried - 1))


def pace_s(ages_s: Sequence[float], policy: Policy) -> float:
    """Return how many seconds to wait so that no more than ``burst`` attempts start in any ``burst_s``.

    Args:
        ages_s: for each attempt of the whole call, how many seconds ago it started.
        policy: see Policy.
    """
    recent = sorted(ages_s)
    if len(recent) < policy.burst:
        return 0.0
    return max(policy.burst_s - recent[policy.burst - 1], 0.0)
