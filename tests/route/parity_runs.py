"""Simulated tests of parity, looked at after every sample; for the tests here and for bench/parity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.route.sequential import Rules, log_gains

_NEVER = 2**31
_BLOCK = 1_000
"""Samples looked at in one piece; runs that are decided take no part in the next."""
VALUES = np.array([-1.0, 0.0, 1.0])
"""A lost, a tied and a won pair."""


@dataclass(frozen=True, slots=True)
class World:
    """Two models and a judge.

    Attributes:
        loss: share of lost pairs minus that of won ones, as a judge that never errs would find.
        decisive: share of pairs in which one answer is truly better; the rest are ties.
        noise: chance of a single verdict that is the opposite of the truth, or, of a tie, a pick by chance.
        position: chance of a single verdict for whichever answer stands first.
    """

    loss: float
    decisive: float
    noise: float = 0.0
    position: float = 0.0

    def chances(self) -> NDArray[np.float64]:
        """Return the chances of VALUES as the judge's two verdicts on a pair, one each way round, make them."""
        lost, won = (self.decisive + self.loss) / 2, (self.decisive - self.loss) / 2
        truth = np.array([lost, 1 - lost - won, won])
        return np.array(truth @ np.array([self._seen(quality) for quality in (-1, 0, 1)]))

    def _seen(self, quality: int) -> NDArray[np.float64]:
        """Return the chances of VALUES for one true outcome: both verdicts must agree, else it is a tie."""
        first = self._single(quality, up=1)
        second = self._single(quality, up=-1)
        lost, won = first[0] * second[0], first[2] * second[2]
        return np.array([lost, 1 - lost - won, won])

    def _single(self, quality: int, up: int) -> NDArray[np.float64]:
        """Return the chances of one verdict; ``up`` says which value the answer that stands first would win."""
        fair = np.zeros(3)
        fair[quality + 1] += 1 - self.noise
        if quality:
            fair[1 - quality] += self.noise
        else:
            fair[[0, 2]] += self.noise / 2
        seen = (1 - self.position) * fair
        seen[up + 1] += self.position
        return seen


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How each run ended, and after how many samples."""

    certified: NDArray[np.bool_]
    breached: NDArray[np.bool_]
    samples: NDArray[np.int64]

    def median(self, which: NDArray[np.bool_]) -> float:
        """Return the median number of samples of some runs; not a number where there are none."""
        return float(np.median(self.samples[which])) if which.any() else math.nan


def outcomes(world: World, rules: Rules, *, runs: int, seed: int) -> Outcomes:
    """Run the test on so many series of samples, each until it decides or its budget is spent."""
    rng = np.random.default_rng(seed)
    chances = world.chances()
    means = (-rules.margin * rules.reliability, rules.margin)
    sides = tuple(
        np.array(log_gains((sign * VALUES).tolist(), mean)) for sign, mean in zip((1, -1), means, strict=True)
    )
    ends = np.array([_run(rng, chances, sides, rules) for _ in range(runs)])
    certified, breached = ends[:, 0] < ends[:, 1], ends[:, 1] < ends[:, 0]
    return Outcomes(certified, breached, np.minimum(ends.min(axis=1) + 1, rules.budget))


def _run(
    rng: np.random.Generator, chances: NDArray[np.float64], sides: tuple[NDArray[np.float64], ...], rules: Rules
) -> tuple[int, int]:
    """Return after which sample each side's capital first reached what decides; _NEVER where none did."""
    seen = np.zeros(len(VALUES))
    for start in range(0, rules.budget, _BLOCK):
        drawn = rng.choice(len(VALUES), p=chances, size=min(_BLOCK, rules.budget - start))
        counts = seen + (drawn[:, None] == np.arange(len(VALUES))).cumsum(axis=0)
        first = [_first(counts @ gains.T, rules.alpha) for gains in sides]
        if min(first) < _NEVER:
            return start + first[0], start + first[1]
        seen = counts[-1]
    return _NEVER, _NEVER


def _first(totals: NDArray[np.float64], alpha: float) -> int:
    """Return the first row in which the mean capital of all stakes has reached 1 / alpha."""
    reached = np.flatnonzero(np.exp(np.minimum(totals, 700.0)).mean(axis=1) >= 1 / alpha)
    return int(reached[0]) if len(reached) else _NEVER
