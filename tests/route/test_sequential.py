"""The test of parity: its bounds, its states, and that it keeps its error rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.route import sequential
from app.route.sequential import Rules, added, decide, log_capital, lower_bound, read, thousandths
from tests.route.parity_runs import World, outcomes

COUNTS = st.dictionaries(st.integers(-1000, 1000), st.integers(1, 400), max_size=6)
MEANS = st.floats(-0.99, 0.99)


@given(COUNTS, MEANS, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_fair_game(counts: dict[int, int], mean: float, low: int, high: int) -> None:
    """At the true mean no sample is expected to change the capital: what the whole test rests on."""
    if low / 1000 >= mean or high / 1000 <= mean:
        return
    chance = (mean - low / 1000) / ((high - low) / 1000)  # of the high one, so that the mean is the mean
    before = log_capital(counts, mean) if counts else 0.0
    after = [log_capital(added([counts, {each: 1}]), mean) - before for each in (low, high)]
    expected = (1 - chance) * math.exp(after[0]) + chance * math.exp(after[1])
    assert expected == pytest.approx(1.0, rel=1e-6)


@given(COUNTS.filter(bool), st.floats(0.001, 0.5))
def test_bounds_enclose_the_mean_and_mirror(counts: dict[int, int], alpha: float) -> None:
    rules = Rules(alpha=alpha)
    found = read(counts, rules)
    assert found.mean is not None
    assert -1 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1
    turned = read({-each: number for each, number in counts.items()}, rules)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@given(COUNTS.filter(bool), MEANS, MEANS)
def test_the_capital_falls_as_the_mean_rises(counts: dict[int, int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert log_capital(counts, low) >= log_capital(counts, high) - 1e-9


@given(COUNTS.filter(bool), st.integers(1, 50))
def test_wins_raise_and_losses_lower_both_bounds(counts: dict[int, int], more: int) -> None:
    rules = Rules()
    found, won, lost = (read(added([counts, extra]), rules) for extra in ({}, {1000: more}, {-1000: more}))
    assert lost.low - 1e-9 <= found.low <= won.low + 1e-9
    assert lost.high - 1e-9 <= found.high <= won.high + 1e-9


@given(st.lists(COUNTS, max_size=4))
def test_counts_of_several_hosts_add_up(each: list[dict[int, int]]) -> None:
    total = added(each)
    assert sum(total.values()) == sum(sum(counts.values()) for counts in each)
    assert read(total, Rules()) == read(added(reversed(each)), Rules())


@given(COUNTS.filter(bool), st.floats(0.5, 1.0))
def test_states_are_what_the_bounds_say(counts: dict[int, int], reliability: float) -> None:
    rules = Rules(margin=0.1, reliability=reliability, budget=100)
    found = read(counts, rules)
    assert found.state == decide(counts, rules)
    if found.state == "certified":
        assert found.low >= -0.1 * reliability - 1e-9
    elif found.state == "breached":
        assert found.high <= -0.1 + 1e-9
    else:
        assert (found.state == "inconclusive") == (found.samples >= 100)
        assert found.low <= -0.1 * reliability + 1e-9
        assert found.high >= -0.1 - 1e-9


def test_before_the_first_sample() -> None:
    assert read({}, Rules()) == sequential.Reading("learning", 0, -1.0, None, 1.0)
    assert decide({}, Rules()) == "learning"


@pytest.mark.parametrize("wrong", [1.01, -1.01, math.nan, math.inf])
def test_what_is_no_difference_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="between -1 and 1"):
        thousandths(wrong)


def test_ties_alone_certify_and_losses_alone_breach() -> None:
    assert decide({0: 400}, Rules()) == "certified"
    assert decide({0: 100}, Rules()) == "learning"
    assert decide({-1000: 12}, Rules()) == "breached"
    assert lower_bound({0: 400}, 0.05) > -0.02


@pytest.mark.parametrize("decisive", [0.05, 0.3])
def test_a_loss_at_the_margin_is_seldom_certified(decisive: float) -> None:
    """300 runs, looked at after each of 3,000 samples; 5 % of 300 are 15, and the test stays well below."""
    found = outcomes(World(loss=0.02, decisive=decisive), Rules(budget=3_000), runs=300, seed=1)
    assert np.count_nonzero(found.certified) <= 15
    assert np.count_nonzero(found.breached) <= 15


def test_an_equal_model_is_certified_and_a_bad_one_breached() -> None:
    equal = outcomes(World(loss=0.0, decisive=0.05), Rules(budget=4_000), runs=100, seed=2)
    bad = outcomes(World(loss=0.1, decisive=0.2), Rules(budget=4_000), runs=100, seed=3)
    assert equal.certified.mean() > 0.95
    assert bad.breached.mean() == 1.0
    assert bad.median(bad.breached) < 400


def test_a_judge_that_errs_does_not_certify_what_the_margin_forbids() -> None:
    """The scores show 72 % of the loss: with the reliability that the settings ask for, the error rate still holds."""
    world = World(loss=0.05, decisive=0.2, noise=0.1, position=0.1)
    rules = Rules(margin=0.05, reliability=0.7, budget=6_000)
    assert outcomes(world, rules, runs=200, seed=4).certified.mean() <= 0.05
    trusting = outcomes(world, Rules(margin=0.05, budget=6_000), runs=200, seed=4)
    assert trusting.certified.mean() > 0.1, "else this world would not need it"
