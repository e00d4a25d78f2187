from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.call import Choice, Target
from app.route.parity import Rollback, Trial, Verdicts, judge_report, set_back
from app.route.sequential import Rules
from app.settings import parse_chain

CHEAP, GOOD = Target("up", "cheap"), Target("up", "good")
TRIAL = Trial("analysis", "map", CHEAP, GOOD, "abc")
BACK = [Rollback("analysis", CHEAP, GOOD)]


@pytest.mark.parametrize(
    ("chain", "after"),
    [
        ("up/cheap", "up/good"),
        ("up/cheap,up/spare", "up/good,up/spare"),
        ("up/cheap,up/good", "up/good"),
        ("up/spare,up/cheap", "up/spare,up/good"),
        ("up/cheap@30,up/other@70", "up/good@30,up/other@70"),
        ("up/cheap@30,up/good@70", "up/good@100"),
        ("up/good@70,up/other@10,up/cheap@20", "up/good@90,up/other@10"),
        ("up/other", "up/other"),
        ("", ""),
    ],
)
def test_the_reference_takes_the_place_of_the_one_that_lost(chain: str, after: str) -> None:
    assert set_back(parse_chain(chain), BACK) == parse_chain(after)


def test_short_names_are_the_same_target() -> None:
    back = [Rollback("analysis", Target("openrouter", "qwen/qwen-2.5-7b-instruct"), GOOD)]
    assert set_back(parse_chain("openrouter/qwen-2.5-7b-instruct"), back) == (Choice(GOOD),)


@pytest.mark.parametrize(
    "other",
    [
        replace(TRIAL, role="code"),
        replace(TRIAL, task=""),
        replace(TRIAL, target=GOOD),
        replace(TRIAL, reference=CHEAP),
        replace(TRIAL, prompt_hash="abd"),
        replace(TRIAL, rules=Rules(margin=0.03)),
        replace(TRIAL, rules=Rules(alpha=0.1)),
        replace(TRIAL, rules=Rules(reliability=0.9)),
        replace(TRIAL, rules=Rules(budget=9)),
    ],
)
def test_any_change_is_another_test(other: Trial) -> None:
    assert other.key != TRIAL.key
    assert replace(other).key == other.key


SIDES = st.sampled_from((-1, 0, 1, None))


@given(SIDES, SIDES)
def test_verdicts_that_disagree_are_a_tie(first: int | None, second: int | None) -> None:
    found = Verdicts(first, second).difference
    if first is None or second is None:
        assert found is None
    else:
        assert found == (first if first == second else 0)
        assert Verdicts(-first, -second).difference == -found


def test_a_judge_for_whoever_stands_first() -> None:
    report = judge_report([(Verdicts(1, -1, 1), 8), (Verdicts(1, 1, -1), 2), (Verdicts(None, None), 5)])
    assert (report.pairs, report.agreed, report.repeated, report.same) == (10, 2, 10, 8)
    assert report.position_bias == pytest.approx(0.8)


def test_a_fair_judge_has_no_bias() -> None:
    assert judge_report([(Verdicts(1, 1), 5), (Verdicts(-1, -1), 3), (Verdicts(0, 0), 9)]).position_bias == 0
    assert judge_report([]).position_bias is None
