"""How much longer one model's answers are than another's, from answers of both to the same asks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST = 20
"""With fewer pairs the normal approximation says more than is known."""
_Z = 1.96
"""95 % of a normal distribution lie within so many standard deviations."""


class Ratio(NamedTuple):
    """The other model's tokens over this one's, with its 95 % interval, from ``samples`` pairs."""

    mean: float
    low: float
    high: float
    samples: int


def length_ratio(pairs: Sequence[tuple[int, int]]) -> Ratio | None:
    """Return the ratio of sums of (this one's tokens, the other's); None where there are too few pairs.

    The interval is the ratio estimator's, Cochran, Sampling Techniques, 1977, section 6.4.
    """
    count, mine = len(pairs), sum(one for one, _ in pairs)
    if count < _FEWEST or not mine:
        return None
    ratio = sum(other for _, other in pairs) / mine
    spread = sum((other - ratio * one) ** 2 for one, other in pairs) / (count - 1)
    error = _Z * math.sqrt(spread / count) / (mine / count)
    return Ratio(ratio, max(ratio - error, 0.0), ratio + error, count)
