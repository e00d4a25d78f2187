from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.telemetry.tally import Tallies

_BOUNDS = (0.1, 1.0, 5.0)


def _histogram() -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, Histogram("x", "x", ["of"], registry=registry, buckets=_BOUNDS)


def _told(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "created" not in line]


@given(st.lists(st.one_of(st.sampled_from(_BOUNDS), st.integers(0, 80).map(lambda each: each / 8)), max_size=30))
def test_a_tally_tells_what_the_histogram_itself_would(values: list[float]) -> None:
    (own, plain), (other, tallied) = _histogram(), _histogram()
    tallies = Tallies()
    tally = tallies.observations(tallied.labels("a"))
    plain.labels("a")
    for value in values:
        plain.labels("a").observe(value)
        tally.observe(value)
        if value > 5:
            tallies.hand_over()
    tallies.hand_over()
    tallies.hand_over()
    assert [line for line in _told(own) if "sum" not in line] == [line for line in _told(other) if "sum" not in line]
    assert abs(own.get_sample_value("x_sum", {"of": "a"}) - other.get_sample_value("x_sum", {"of": "a"})) < 1e-9  # type: ignore[operator]


def test_nothing_is_lost_to_a_scrape_in_another_thread() -> None:
    registry = CollectorRegistry()
    tallies = Tallies()
    tally = tallies.count(Counter("x", "x", registry=registry))
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            tallies.hand_over()

    thread = threading.Thread(target=scrape)
    thread.start()
    for _ in range(20_000):
        with tallies.lock:
            tally.inc()
    done.set()
    thread.join()
    tallies.hand_over()
    assert registry.get_sample_value("x_total") == 20_000
