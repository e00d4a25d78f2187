"""Metrics of parity. Labels are roles, tasks and targets of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.call import Target

STATES: Final = {"learning": 0, "certified": 1, "inconclusive": 2, "breached": 3}
DROPPED: Final = ("full", "busy", "budget", "unpriced", "judge", "database", "failed", "cut")
"""Why a call that was chosen for parity became no sample."""
_LABELS: Final = ("role", "task", "target")


class ParityMetrics:
    """What tests of parity show; every worker shows the same tests, read from the database."""

    def __init__(self, registry: CollectorRegistry, label: Callable[[Target], str]) -> None:
        self._label = label
        self._difference = Gauge(
            "sluice_parity_difference",
            "Mean difference to the reference (1: always better, -1: always worse), and its bounds.",
            [*_LABELS, "bound"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._state = Gauge(
            "sluice_parity_state",
            "0 learning, 1 certified, 2 inconclusive, 3 breached.",
            _LABELS,
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._samples = Counter(
            "sluice_parity_samples", "Pairs of answers, by how they were scored.", [*_LABELS, "method"],
            registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "sluice_shadow_dropped", "Calls chosen for parity that became no sample.", ["role", "why"],
            registry=registry,
        )  # fmt: skip
        self._candidate = Counter(
            "sluice_classifier_candidate", "Verdicts of CLASSIFIER_CANDIDATE beside the one in use.", ["verdict"],
            registry=registry,
        )  # fmt: skip

    def stands(self, role: str, task: str, target: Target, state: str, bounds: Mapping[str, float]) -> None:
        """Show how a test stands; ``bounds`` has ``low``, ``mean`` and ``high`` as far as they are known."""
        labels = role, task or "none", self._label(target)
        self._state.labels(*labels).set(STATES[state])
        for bound, value in bounds.items():
            self._difference.labels(*labels, bound).set(value)

    def sampled(self, role: str, task: str, target: Target, method: str) -> None:
        """Count a sample that was written down."""
        self._samples.labels(role, task or "none", self._label(target), method).inc()

    def dropped(self, role: str, why: str) -> None:
        """Count a call that was chosen and became no sample; ``why`` is one of DROPPED."""
        self._dropped.labels(role, why).inc()

    def compared(self, verdict: str) -> None:
        """Count a verdict of the classifier that runs beside: ``same``, ``tier``, ``kind`` or ``both`` differ."""
        self._candidate.labels(verdict).inc()
