"""What one call cost, all attempts together, and what it would have cost at the baseline."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from app.trace import Attempt, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.call import Target
    from app.ledger.prices import Prices
    from app.trace import Trace

_NOTHING = Decimal(0)


class Bill(NamedTuple):
    """The money of one call.

    Attributes:
        attempts: those of the call, each with its cost.
        cost_usd: of all of them; None where one that used something has no price.
        baseline: the target compared with; None where the call is compared with nothing.
        baseline_usd: what the served answer's tokens would have cost there; None where it has no price.
        usage: of the answer that was served; None where there was none.
    """

    attempts: tuple[Attempt, ...]
    cost_usd: Decimal | None
    baseline: Target | None = None
    baseline_usd: Decimal | None = None
    usage: Usage | None = None

    @property
    def saved_usd(self) -> Decimal | None:
        """Baseline less cost, negative where the call cost more; None where either has no price."""
        if self.cost_usd is None or self.baseline_usd is None:
            return None
        return self.baseline_usd - self.cost_usd


def make_bill(trace: Trace, usage: Usage | None, prices: Prices, baseline: Target | None) -> Bill:
    """Make a call's bill.

    Args:
        trace: the call's, with all its attempts.
        usage: of the answer that was served; None where there was none.
        prices: of all targets.
        baseline: the target to compare with; None compares with nothing: the baseline's cost is the call's own.
    """
    attempts = tuple([_priced(each, prices) for each in trace.attempts])
    cost = _total(attempts)
    if baseline is None:
        return Bill(attempts, cost, None, cost, usage)
    served = served_tokens(trace, usage)
    same = prices.cost_usd(baseline, served) if served is not None else _NOTHING
    return Bill(attempts, cost, baseline, same, usage)


def _priced(attempt: Attempt, prices: Prices) -> Attempt:
    """Return an attempt with its cost. A relayed answer, whose tokens nobody knows, is free on one's own machine."""
    usage = attempt.usage
    if usage is None:
        free = attempt.result == "ok" and prices.is_own(attempt.target)
        return replace(attempt, cost_usd=_NOTHING) if free else attempt
    cost, price = prices.priced(attempt.target, usage, attempt.duration_ms / 1000)
    return Attempt(
        attempt.target, attempt.result, attempt.duration_ms, usage, attempt.sent, attempt.purpose, cost, price
    )


def _total(attempts: Sequence[Attempt]) -> Decimal | None:
    total = _NOTHING
    for each in attempts:
        if each.cost_usd is not None:
            total += each.cost_usd
        elif each.usage is not None or each.result == "ok":
            return None
    return total


def served_tokens(trace: Trace, usage: Usage | None) -> Usage | None:
    """Return the tokens that one model would have needed for what the caller asked and got.

    A polished answer's prompt holds the draft and an instruction, a continued one's what was said before: the prompt
    is then that of the first attempt, and of an answer in two parts both count.
    """
    if usage is None:
        return None
    if trace.polished != "yes" and "continue" not in trace.rescued:
        return usage if usage.cost_usd is None else _tokens(usage, usage.completion, usage.reasoning)
    used = [each.usage for each in trace.attempts if each.usage is not None]
    first = used[0] if used else usage
    if "continue" not in trace.rescued:
        return _tokens(first, usage.completion, usage.reasoning)
    parts = [each.usage for each in trace.attempts if each.usage is not None and each.result != "other_answer"]
    return _tokens(first, sum(each.completion for each in parts), sum(each.reasoning for each in parts))


def _tokens(prompt: Usage, completion: int, reasoning: int) -> Usage:
    """Return a usage with the prompt side of another, less any cost that a backend told: that was its own price."""
    return Usage(
        prompt.prompt, completion, prompt.cached, reasoning, estimated=prompt.estimated, cache_write=prompt.cache_write
    )
