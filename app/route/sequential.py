"""Is one model as good as another: a test that may be looked at after every sample and keeps its error rate. Pure.

Each sample is a difference between two answers to one call, from -1 (the model under test lost) to 1 (it won). Asked
is the mean of the differences. For a mean m one bets on every sample: a stake g in (0, 1) turns one unit of capital
into ``1 + g (y - u) / u``, with ``y = d + 1`` and ``u = m + 1``. Where m is the true mean, or above it, no bet gains in
the long run: by Ville's inequality the capital ever reaches 1/alpha with a probability of at most alpha, however often
one looks and whenever one stops. So a mean at which it has reached that is ruled out, and the capital falls as m grows:
what is ruled out is everything below one bound. Upper bounds are the same for the differences with their signs turned.

How much to stake depends on what is not known, the variance. The capital is spread over several stakes that stay as
they are, "diversified" betting in section B of Waudby-Smith and Ramdas, "Estimating means of bounded random variables
by betting", JRSS B 86 (2024), arXiv 2010.09686; Orabona and Jun, arXiv 2110.14099, show that such portfolios lose only
the logarithm of what the best stake in hindsight would have won. Constant stakes make the capital depend on how often
each difference was seen and not on their order. So counts are the whole state: they are small, they add up over workers
and hosts, and everybody who reads the same counts comes to the same decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import mul
from typing import Final, Literal

State = Literal["learning", "certified", "breached", "inconclusive"]
Counts = Mapping[int, int]
"""How often each difference was seen; differences in thousandths, -1000 to 1000."""

UNIT: Final = 1000
"""Differences are told in thousandths: a twentieth of the smallest margin that makes sense."""
STAKES: Final = (0.01, 0.022, 0.048, 0.1, 0.23, 0.5, 0.9)
"""Shares of the capital, each about 2.2 times the one before: at the worst stake between two of them the growth is 15 %
below the best one's, and more stakes would cost more than that (bench/parity). The best stake is about twice the shift
over the variance: 0.01 for a shift of 0.5 points where every pair is decisive, 0.9 where 2 % are."""
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Rules:
    """What a test is to decide.

    Attributes:
        margin: so much less than the reference is still as good; 0.02 is two more lost pairs than won ones in 100.
        alpha: the most that the chance of a wrong certificate may be, and of a wrong breach.
        reliability: the share of a true difference that the scores still show at least. A judge that errs makes
            differences look smaller than they are: a certificate asks for a loss below ``reliability * margin``. A
            breach asks for one above the whole margin, as the scores may be perfect.
        budget: after so many samples without a decision the test ends as inconclusive.
    """

    margin: float = 0.02
    alpha: float = 0.05
    reliability: float = 1.0
    budget: int = 20_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What a test says after so many samples; ``mean`` is None and the bounds are -1 and 1 before the first one."""

    state: State
    samples: int
    low: float
    mean: float | None
    high: float


def thousandths(difference: float) -> int:
    """Return a difference as it is counted.

    Raises:
        ValueError: it is not a number from -1 to 1.
    """
    if not -1.0 <= difference <= 1.0:
        raise ValueError(f"a difference lies between -1 and 1; this is {difference}")
    return round(difference * UNIT)


def added(counts: Iterable[Counts]) -> dict[int, int]:
    """Return the sum of several counts, those of other workers and hosts for instance."""
    total: dict[int, int] = {}
    for each in counts:
        for difference, number in each.items():
            total[difference] = total.get(difference, 0) + number
    return total


def read(counts: Counts, rules: Rules) -> Reading:
    """Return what the test says. The bounds hold for every look at once, each with a chance of 1 - alpha."""
    samples = sum(counts.values())
    if samples == 0:
        return Reading("learning", 0, -1.0, None, 1.0)
    low, high = lower_bound(counts, rules.alpha), -lower_bound(_turned(counts), rules.alpha)
    mean = sum(difference * number for difference, number in counts.items()) / samples / UNIT
    return Reading(decide(counts, rules), samples, low, mean, high)


def decide(counts: Counts, rules: Rules) -> State:
    """Return the state alone: two capitals, no search for bounds. In the case that both have won, it is a breach."""
    won = -math.log(rules.alpha)
    if log_capital(_turned(counts), rules.margin) >= won:
        return "breached"
    if log_capital(counts, -rules.margin * rules.reliability) >= won:
        return "certified"
    return "learning" if sum(counts.values()) < rules.budget else "inconclusive"


def lower_bound(counts: Counts, alpha: float) -> float:
    """Return the least mean that is not ruled out; rounded down by at most 1e-12."""
    low, high = -1.0, 1.0
    won = -math.log(alpha)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if log_capital(counts, middle) >= won:
            low = middle
        else:
            high = middle
    return low


def log_capital(counts: Counts, mean: float) -> float:
    """Return the logarithm of what one unit has become by betting that the true mean is above ``mean`` (over -1)."""
    totals = [
        math.fsum(map(mul, gains, counts.values())) for gains in log_gains([each / UNIT for each in counts], mean)
    ]
    top = max(totals)
    return top + math.log(sum(math.exp(total - top) for total in totals) / len(totals))


def log_gains(differences: Iterable[float], mean: float) -> list[list[float]]:
    """Return what one sample adds to the logarithm of each stake's capital; a row a stake, a column a difference."""
    shifts = [(each - mean) / (mean + 1.0) for each in differences]
    return [[math.log1p(stake * shift) for shift in shifts] for stake in STAKES]


def _turned(counts: Counts) -> dict[int, int]:
    return {-difference: number for difference, number in counts.items()}
