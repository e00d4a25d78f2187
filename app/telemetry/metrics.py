"""Prometheus metrics, fed one Record a call. Label values come from closed sets, never from a caller's strings."""

from __future__ import annotations

import logging
import os
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.telemetry.engine import EngineMetrics
from app.telemetry.money import LedgerMetrics, MoneyMetrics
from app.telemetry.parity import ParityMetrics
from app.telemetry.tally import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.call import Target
    from app.telemetry.tally import Observations
    from app.trace import Attempt, Record, Usage

log = logging.getLogger("sluice")
# From 50 us (a stage of ours) to 5 min (a long answer), about 2.5 steps a decade.
BUCKETS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300),
)
_MOST_UNCOUNTED = 16
CHAR_BUCKETS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2, "dead": 3}
BOX_STATES = {"absent": 0, "suspended": 1, "resuming": 2, "pulling": 3, "ready": 4, "failed": 5}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of one process; several workers are summed when one of them is scraped.

    Attributes:
        calls_under_way: asked for ``sluice_inflight``.
    """

    def __init__(self, label: Callable[[Target], str] = str) -> None:
        self._registry = CollectorRegistry()
        self._label = label
        self._requests = self._counter("requests", "Calls by outcome.", "endpoint", "target", "role", "outcome")
        self._errors = self._counter("errors", "Errors that callers were told, by fault domain.", "error_type")
        self._stages = self._histogram("stage_seconds", "Time spent in each stage of a call.", "stage")
        self._overhead = self._histogram("overhead_seconds", "Sluice's own time up to the answer's first byte.")
        self._first = self._histogram("time_to_first_token_seconds", "Time to the first content of a stream.", "target")
        self._token = self._histogram("time_per_output_token_seconds", "Time between two contents.", "target")
        self._tokens = self._counter("tokens", "Tokens by kind; cached and reasoning are parts.", "target", "kind")
        self._retries = self._counter("retries", "Further attempts at the same target.", "reason")
        self._fallbacks = self._counter("fallbacks", "Attempts at the next candidate.", "reason")
        self._rescues = self._counter("rescues", "Broken streams that were saved.", "how")
        self._kinds = self._counter("classifications", "Calls by kind and tier.", "kind", "tier")
        self._faults = self._counter("quality_faults", "Faults found in answers.", "fault", "target")
        self._polishes = self._counter("polish", "What became of answers that were checked.", "outcome")
        self._chars = Histogram(
            "sluice_answer_chars", "Length of answers.", ["target"], registry=self._registry, buckets=CHAR_BUCKETS
        )
        self._code = self._counter("answers_with_code", "Answers by whether they hold a code block.", "target", "code")
        self._cache = self._counter("answer_cache", "Calls by what the cache did: hit, miss, off.", "outcome")
        self._transitions = self._counter("breaker_transitions", "Breaker changes.", "target", "state", "event")
        self._breakers = Gauge(
            "sluice_breaker_state",
            "0 closed, 1 half open, 2 open, 3 dead key.",
            ["target"],
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._box_states = Gauge(
            "sluice_box_state",
            "Of a backend that sleeps: 0 absent, 1 suspended, 2 resuming, 3 pulling, 4 ready, 5 failed.",
            ["backend"],
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )
        self._wakes = self._counter("box_wakes", "Wakes of a backend that sleeps.", "backend", "outcome")
        self._wake_seconds = self._histogram("box_wake_seconds", "Time a wake took, well or not.", "backend")
        self.calls_under_way: Callable[[], int] = lambda: 0
        self._inflight = Gauge(
            "sluice_inflight", "Calls under way.", registry=self._registry, multiprocess_mode="livesum"
        )
        self._config = Gauge(
            "sluice_config_ok",
            "1 while the configuration in force is the one on disk.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._budgets = Gauge(
            "sluice_budget_used_ratio",
            "The highest share of a key's budget that is spent, of all keys.",
            ["period"],
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )
        self._tasks = self._counter("task_calls", "Calls of tasks and pipelines, by how they ended.", "task", "outcome")
        self._engine = EngineMetrics(self._registry, label)
        self.parity = ParityMetrics(self._registry, label)
        self._children()

    @property
    def label(self) -> Callable[[Target], str]:
        """How targets are named: from a closed set."""
        return self._label

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sluice_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"sluice_{name}", text, labels, registry=self._registry, buckets=BUCKETS)

    def _children(self) -> None:
        """Keep the children: ``labels()`` costs more than the observation itself."""
        self._tallies = tallies = Tallies()
        self._uncounted: deque[Record] = deque()
        self._counted_by: list[Callable[[Record], None]] = [self._count]
        keep = lru_cache(maxsize=None)  # labels come from closed sets; what is counted must not be forgotten

        def observations(family: Histogram) -> Callable[..., Observations]:
            return keep(lambda *labels: tallies.observations(family.labels(*labels) if labels else family))

        self._request_of = tallies.counts(self._requests)
        self._stage_of = observations(self._stages)
        self._overhead_of = observations(self._overhead)
        self._first_of = observations(self._first)
        self._token_of = observations(self._token)
        self._tokens_of = tallies.counts(self._tokens)
        self._kind_of = tallies.counts(self._kinds)
        self._polish_of = tallies.counts(self._polishes)
        self._chars_of = observations(self._chars)
        self._code_of = tallies.counts(self._code)
        self._cache_of = tallies.counts(self._cache)

    def add_money(self, is_own: Callable[[Target], bool]) -> None:
        """Count money too; ``is_own`` tells whether no bill comes for a target's tokens."""
        self._counted_by.append(MoneyMetrics(self._registry, self._label, is_own, self._tallies).count)

    def ledger(self) -> LedgerMetrics:
        """Return the metrics of the ledger's rows."""
        return LedgerMetrics(self._registry)

    def observe(self, record: Record) -> None:
        """Take one call in, to be counted with others: the same work costs half where it is done in a row."""
        if record.target is not None:
            self._label(record.target)  # it has a name now; a reload may take it from the configuration
        self._uncounted.append(record)
        if len(self._uncounted) >= _MOST_UNCOUNTED:
            self._count_all()

    def _count_all(self) -> None:
        with self._tallies.lock:
            while self._uncounted:
                record = self._uncounted.popleft()
                for count in self._counted_by:
                    self._try(count, record)

    @staticmethod
    def _try(count: Callable[[Record], None], record: Record) -> None:
        """Count a record; what fails costs its own count, not another call's."""
        try:
            count(record)
        except Exception:
            log.exception("counting failed on the record of %s", record.request_id)

    def hand_over(self) -> None:
        """Give what was observed to Prometheus' values, where other workers find it too; any thread may."""
        self._count_all()
        self._tallies.hand_over()
        self._inflight.set(self.calls_under_way())

    def _count(self, record: Record) -> None:
        target = self._label(record.target) if record.target is not None else "none"
        self._request_of(record.endpoint, target, record.role or "none", record.outcome).inc()
        self._cache_of(record.cache or "off").inc()
        if record.error_type is not None:
            self._errors.labels(record.error_type).inc()
        for stage, ms in record.stages_ms.items():
            self._stage_of(stage).observe(ms / 1000)
        if record.task is not None:  # only names of prompt files get that far
            broke = record.error_type == "backend_contract"
            self._tasks.labels(record.task, "contract" if broke else record.outcome).inc()
        self._overhead_of().observe(max(record.total_ms - record.backend_ms, 0.0) / 1000)
        self._observe_stream(target, record)
        for attempt in record.attempts:
            if attempt.usage is not None:
                self._count_tokens(self._label(attempt.target), attempt.usage)
        if record.verdict is not None and record.verdict.kind is not None:
            self._count_judgement(target, record)
        if len(record.attempts) > 1 or record.rescued:
            self._count_detours(record)

    def _observe_stream(self, target: str, record: Record) -> None:
        if record.first_token_ms is not None:
            self._first_of(target).observe(record.first_token_ms / 1000)
        if record.per_token_ms is not None:
            self._token_of(target).observe(record.per_token_ms / 1000)

    def _count_judgement(self, target: str, record: Record) -> None:
        if record.verdict is not None:
            self._kind_of(record.verdict.kind or "none", record.role or "none").inc()
        if record.faults:
            drafted = next((each.target for each in record.attempts if each.result == "ok"), record.target)
            who = self._label(drafted) if drafted is not None else target
            for fault in record.faults:
                self._faults.labels(fault, who).inc()
        if record.polished is not None:
            self._polish_of(record.polished if record.faults else "not_needed").inc()
        if record.chars is not None:
            self._chars_of(target).observe(record.chars)
            self._code_of(target, "yes" if record.code_block else "no").inc()

    def _count_tokens(self, target: str, usage: Usage) -> None:
        for kind in ("prompt", "completion", "cached", "reasoning"):
            amount = getattr(usage, kind)
            if amount:
                self._tokens_of(target, kind).inc(amount)

    def _count_detours(self, record: Record) -> None:
        before: Attempt | None = None
        for attempt in record.attempts:
            if before is not None and before.result != "ok":  # else it was another part of the same call
                which = self._retries if before.target == attempt.target else self._fallbacks
                which.labels(before.result).inc()
            before = attempt
        for how in record.rescued:
            self._rescues.labels(how).inc()

    def breaker_changed(self, target: Target, new: str, event: str) -> None:
        """Count one change of a lane's breaker."""
        label = self._label(target)
        self._transitions.labels(label, new, event).inc()
        self._breakers.labels(label).set(BREAKER_STATES[new])

    def engines(self, stats: list[dict[str, Any]], restarts: int) -> None:
        """Show what the local engines say of themselves."""
        self._engine.update(stats, restarts)

    def box_state(self, backend: str, state: str) -> None:
        """Take note that a backend that sleeps is in another state."""
        self._box_states.labels(backend).set(BOX_STATES[state])

    def box_woken(self, backend: str, outcome: str, seconds: float) -> None:
        """Count one wake; ``outcome`` is ``ok`` or ``failed``."""
        self._wakes.labels(backend, outcome).inc()
        self._wake_seconds.labels(backend).observe(seconds)

    def budget_used(self, period: str, share: float) -> None:
        """Say how far the budget that is used most is used up, 1 being all of it; ``period`` is ``day`` or ``month``.

        Keys have names that operators give: which one it is, ``GET /admin/keys`` tells.
        """
        self._budgets.labels(period).set(share)

    def config_loaded(self, *, ok: bool) -> None:
        """Say whether the configuration in force is the one on disk."""
        self._config.set(1 if ok else 0)

    def text(self) -> bytes:
        """Return all metrics of all workers in Prometheus' text format. Takes milliseconds: call it in a thread."""
        self.hand_over()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
