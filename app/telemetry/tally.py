"""Counts and observations kept in plain numbers, and handed to Prometheus' values in bulk.

A call makes about twenty observations. At Prometheus' values each costs a lock, and with several workers a write to a
shared file; here a list's item, a tenth of that.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Counter, Gauge, Histogram


class _Tally(Protocol):
    def take(self) -> Callable[[], None] | None:
        """Begin anew; return what hands over the old counts, or None where there is nothing."""


class Count:
    """What was added to one counter's child."""

    __slots__ = ("_amount", "_child")

    def __init__(self, child: Counter | Gauge) -> None:
        self._child = child
        self._amount = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self._amount += amount

    def take(self) -> Callable[[], None] | None:
        """Begin anew; return what hands over the old amount."""
        amount, self._amount = self._amount, 0.0
        return (lambda: self._child.inc(amount)) if amount else None


class Observations:
    """What one histogram's child observed, by bucket."""

    __slots__ = ("_bounds", "_child", "_counts", "_sum")

    def __init__(self, child: Histogram) -> None:
        self._child: Any = child
        self._bounds: list[float] = self._child._upper_bounds  # noqa: SLF001 - it has no other face for many at once
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def take(self) -> Callable[[], None] | None:
        """Begin anew; return what hands over the old counts."""
        counts, self._counts = self._counts, [0] * len(self._bounds)
        total, self._sum = self._sum, 0.0
        return (lambda: self._hand_over(counts, total)) if any(counts) else None

    def _hand_over(self, counts: list[int], total: float) -> None:
        for bucket, count in zip(self._child._buckets, counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)
        self._child._sum.inc(total)  # noqa: SLF001


class Tallies:
    """All tallies of a process: ``lock`` is held while some are counted in, so that none is lost to another thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._all: list[_Tally] = []

    def count(self, child: Counter | Gauge) -> Count:
        """Return the tally of a child that is added to."""
        made = Count(child)
        self._all.append(made)
        return made

    def counts(self, family: Counter | Gauge) -> Callable[..., Count]:
        """Return what gives the tally of each of a family's children; its labels come from closed sets."""
        return lru_cache(maxsize=None)(lambda *labels: self.count(family.labels(*labels)))

    def observations(self, child: Histogram) -> Observations:
        """Return the tally of a histogram's child."""
        made = Observations(child)
        self._all.append(made)
        return made

    def hand_over(self) -> None:
        """Hand everything to Prometheus' values; any thread may."""
        with self.lock:
            taken = [tally.take() for tally in self._all]
        for give in taken:
            if give is not None:
                give()
