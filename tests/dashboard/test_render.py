from __future__ import annotations

import time
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dashboard.render import ago, clock, day, environment, millis, number, percent, render, size, usd
from app.dashboard.waterfall import waterfall


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "$0.00"), (Decimal("1234.5"), "$1,234.50"), (0.5, "$0.5000"), (0.00012, "$0.000120"),
        (-2, "-$2.00"),
    ],
)  # fmt: skip
def test_money(value: Any, text: str) -> None:
    assert usd(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.034, "0.03 ms"), (12.34, "12.3 ms"), (345.6, "346 ms"), (1234, "1.23 s"),
     (65432, "65.4 s")]
)  # fmt: skip
def test_durations(value: Any, text: str) -> None:
    assert millis(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0 B"), (999, "999 B"), (4_300_000_000, "4.3 GB"), (1500, "1.5 kB")]
)
def test_sizes(value: Any, text: str) -> None:
    assert size(value) == text


def test_moments_and_shares() -> None:
    assert clock(0) == "00:00:00"
    assert day(0) == "1970-01-01 00:00:00 UTC"
    assert ago(time.time() - 120) == "2 min ago"
    assert ago(time.time() + 7200.5) == "in 2 h"
    assert (number(12345.6), number(None)) == ("12,346", "–")
    assert (percent(1, 0), percent(0, 5), percent(1, 3), percent(1, 200)) == ("–", "0 %", "33 %", "0.5 %")


@settings(deadline=None, max_examples=30)  # the first reads the template
@given(st.text())
def test_nothing_that_is_shown_can_be_html(text: str) -> None:
    shown = render("toasts.html", said=[(f"<script>{text}</script>", False)])
    assert "<script" not in shown
    assert shown.count("<") == 2


def test_every_template_can_be_read() -> None:
    names = environment().list_templates()
    assert len(names) > 20
    for name in names:
        environment().get_template(name)


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1e9), max_size=20))
def test_a_waterfalls_bars_follow_each_other_and_fill_the_whole(stages: dict[str, float]) -> None:
    bars = waterfall(stages)
    assert [bar.name for bar in bars] == list(stages)
    for one, two in pairwise(bars):
        assert abs(one.start + one.width - two.start) < 0.05
    if sum(stages.values()) > 0:
        assert abs(bars[-1].start + bars[-1].width - 100) < 0.05


def test_whose_time_it_was() -> None:
    kinds = {
        bar.name: bar.kind for bar in waterfall({"parse": 1, "queue": 1, "first_token": 1, "stream": 1, "respond": 1})
    }
    assert kinds == {"parse": "own", "queue": "wait", "first_token": "model", "stream": "model", "respond": "own"}
