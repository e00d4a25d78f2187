"""Metrics of money: what calls cost, what they saved, and which paid calls were not made."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from app.call import Target
    from app.telemetry.tally import Tallies
    from app.trace import Record


class MoneyMetrics:
    """Fed one Record a call.

    Args:
        registry: where they are kept.
        label: names a target, from a closed set.
        is_own: whether a target runs on a machine of one's own, so that no bill comes for its tokens.
        tallies: keep what is counted here until somebody asks.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        label: Callable[[Target], str],
        is_own: Callable[[Target], bool],
        tallies: Tallies,
    ) -> None:
        self._label = label
        self._is_own = is_own
        keep = tallies.counts
        self._cost_of = keep(
            Counter("sluice_cost_usd", "What attempts cost.", ["target", "purpose"], registry=registry)
        )
        self._baseline_of = keep(
            Counter("sluice_baseline_usd", "The same tokens at the baseline.", ["target"], registry=registry)
        )
        # Not a counter: a call may cost more than its baseline, and then this sinks.
        self._saved_of = keep(
            Gauge(
                "sluice_saved_usd_total",
                "Baseline less cost, where both have a price.",
                ["target"],
                registry=registry,
                multiprocess_mode="sum",
            )
        )
        self._avoided_of = keep(
            Counter("sluice_calls_avoided", "Paid calls that were not made.", ["reason"], registry=registry)
        )
        self._unpriced_of = keep(
            Counter("sluice_unpriced", "Attempts at targets without a price.", ["target"], registry=registry)
        )

    def count(self, record: Record) -> None:
        """Count one call; the tallies' lock must be held."""
        for attempt in record.attempts:
            if attempt.usage is None:
                continue
            if attempt.cost_usd is None:
                self._unpriced_of(self._label(attempt.target)).inc()
            elif attempt.cost_usd:
                self._cost_of(self._label(attempt.target), attempt.purpose).inc(float(attempt.cost_usd))
        if record.target is not None:
            self._compare(record, record.target)

    def _compare(self, record: Record, target: Target) -> None:
        if record.saved_usd is not None and record.baseline_usd is not None:
            label = self._label(target)
            self._baseline_of(label).inc(float(record.baseline_usd))
            self._saved_of(label).inc(float(record.saved_usd))
        if record.cache == "hit":
            self._avoided_of("cache").inc()
        elif record.outcome == "ok" and all(self._is_own(each.target) for each in record.attempts if each.sent):
            self._avoided_of("local").inc()


class LedgerMetrics:
    """What became of the ledger's rows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = lru_cache(
            Counter("sluice_ledger_rows", "Calls by what became of their rows.", ["result"], registry=registry).labels
        )
        self._memory = _waiting("sluice_ledger_waiting_rows", "Calls whose rows wait in memory.", registry)
        self._spill = _waiting("sluice_ledger_spill_bytes", "Rows that wait in the spill file.", registry)

    def rows(self, result: str, number: int) -> None:
        """Count rows: ``written``, ``spilled``, ``replayed``, or lost: ``no_room``, ``refused``."""
        self._rows(result).inc(number)

    def waiting(self, rows: int, spilled_bytes: int) -> None:
        """Say what waits now."""
        self._memory.set(rows)
        self._spill.set(spilled_bytes)


def _waiting(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
