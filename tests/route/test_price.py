from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.route.price import Rates, Season, Step, cost_usd, rates_at
from app.trace import Usage

MILLION = 1_000_000
D = Decimal


def test_a_sum_by_hand() -> None:
    # 1,000 prompt tokens, 400 of them cached, 100 written; 500 answered, 200 of them thought.
    rates = Rates(input=D("3"), output=D("15"), cached=D("0.3"), cache_write=D("3.75"), reasoning=D("20"))
    by_hand = D(500 * 3 + 300 * 15 + 200 * 20) / MILLION + (D("0.3") * 400 + D("3.75") * 100) / MILLION
    assert cost_usd(rates, Usage(1000, 500, cached=400, reasoning=200, cache_write=100)) == by_hand == D("0.010495")


def test_what_has_no_rate_of_its_own_costs_like_the_rest() -> None:
    rates = Rates(input=D(2), output=D(8))
    assert cost_usd(rates, Usage(10, 5, cached=4, reasoning=5, cache_write=1)) == D(10 * 2 + 5 * 8) / MILLION


def test_a_long_prompt_makes_all_its_tokens_dearer() -> None:
    rates = Rates(input=D(1), output=D(10), steps=(Step(1000, Rates(D(4), D(40))), Step(200, Rates(D(2), D(20)))))
    costs = [cost_usd(rates, Usage(prompt, 1)) * MILLION for prompt in (200, 201, 1000, 1001)]
    assert costs == [200 + 10, 402 + 20, 2000 + 20, 4004 + 40]


def test_requests_and_hours() -> None:
    rates = Rates(request_usd=D("0.005"), hour_usd=D("0.36"))
    assert cost_usd(rates, Usage(10, 10), busy_s=20.0) == D("0.007")


_RATE = st.decimals(min_value=0, max_value=100, places=6)
_COUNT = st.integers(0, 2_000_000)


@given(_RATE, _RATE, _RATE, _RATE, _COUNT, _COUNT, st.integers(0, 100), st.integers(0, 100))
def test_no_token_is_lost_or_paid_twice(
    asked: Decimal, answered: Decimal, cached: Decimal, thought: Decimal, prompt: int, completion: int, c: int, r: int
) -> None:
    read, reasoning = prompt * c // 100, completion * r // 100
    rates = Rates(input=asked, output=answered, cached=cached, reasoning=thought)
    exact = (
        Fraction(asked) * (prompt - read)
        + Fraction(cached) * read
        + Fraction(answered) * (completion - reasoning)
        + Fraction(thought) * reasoning
    ) / MILLION
    assert Fraction(cost_usd(rates, Usage(prompt, completion, read, reasoning))) == exact


def test_parts_larger_than_the_whole_never_pay_back() -> None:
    rates = Rates(input=D(1), output=D(1), cached=D("0.1"))
    assert cost_usd(rates, Usage(5, 5, cached=50, reasoning=50)) > 0


@pytest.mark.parametrize(
    ("at", "named"),
    [
        (datetime(2026, 6, 30, 23, 29, tzinfo=UTC), "old"),
        (datetime(2026, 7, 1, 0, 30, tzinfo=UTC), "new"),
        (datetime(2026, 7, 1, 23, 30, tzinfo=UTC), "night"),
        (datetime(2026, 7, 2, 0, 29, tzinfo=UTC), "night"),
        (datetime(2026, 7, 2, 0, 30, tzinfo=UTC), "new"),
    ],
)
def test_rates_have_their_seasons(at: datetime, named: str) -> None:
    night = (time(23, 30), time(0, 30))
    seasons = (
        Season(Rates(source="old")),
        Season(Rates(source="new"), since=date(2026, 7, 1)),
        Season(Rates(source="night"), hours=night),
    )
    assert rates_at(seasons, at.timestamp()).source == named


def test_rates_say_what_they_are() -> None:
    assert Rates(input=D("0.15"), output=D("0.6"), cached=D("0.075")).text == "input=0.15 cached=0.075 output=0.6"
