from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.call import Hints, Reasons, Target, Verdict
from app.route.tiers import TASKS, arm_of, auto_roles, hinted, sticky_key, tier, tiers_above
from app.settings import Settings
from tests.route.table import settings

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = (Target("up", name) for name in "abc")
WEIGHTS = st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 100))


@given(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10))
def test_a_tier_never_falls_as_complexity_rises(one: int, other: int, complexity: int) -> None:
    made = Settings(tier_small_max=min(one, other), tier_medium_max=max(one, other))
    order = ["small", "medium", "large"]
    assert order.index(tier(complexity, made)) <= order.index(tier(complexity + 1, made))
    assert tier(None, made) == "large"


def test_the_tiers_bounds() -> None:
    assert [tier(each, Settings()) for each in range(1, 11)] == ["small"] * 4 + ["medium"] * 3 + ["large"] * 3


@pytest.mark.parametrize(
    ("hints", "kind", "complexity"),
    [
        (Hints(), "code", 2),
        (Hints(complexity=9), "code", 9),
        (Hints(task="Curriculum Planning"), "creative", 8),
        (Hints(task="task/theory_analysis", complexity=1), "analysis", 1),
        (Hints(task="translation"), "translation", 2),
        (Hints(task="unheard of"), "code", 2),
        (Hints(task=""), "code", 2),
    ],
)
def test_hints_win(hints: Hints, kind: str, complexity: int) -> None:
    found = hinted(Verdict("code", 2, 7, ("the classifier's",)), hints)
    assert (found.kind, found.complexity, found.prompt_tokens) == (kind, complexity, 7)
    assert found.reasons[-1] == "the classifier's"


def test_a_hint_leaves_what_the_classifier_quotes_unread() -> None:
    read = []

    def quotes() -> tuple[str, ...]:
        read.append(1)
        return (": 'a function'",)

    reasons = Reasons(("asks for code", "complexity 2 of 10"), quotes)
    found = hinted(Verdict("code", 2, 7, reasons), Hints(complexity=3)).reasons
    assert read == []
    assert tuple(found) == ("complexity 3 was given with the call", "asks for code: 'a function'", "complexity 2 of 10")


def test_the_tasks_complexities() -> None:
    assert [complexity for _, complexity in TASKS.values()] == [4, 4, 3, 5, 5, 6, 7, 8]


def test_auto_tries_code_first_and_each_role_once(tmp_path: Path) -> None:
    made = settings(tmp_path)
    roles = auto_roles(Verdict("code", 6), made)
    assert roles[:4] == ("code", "medium", "small", "large")
    assert len(set(roles)) == len(roles)
    assert auto_roles(Verdict("chat", 6), made)[0] == "medium"


def test_escalation_only_goes_up() -> None:
    assert tiers_above("small") == ("medium", "large")
    assert tiers_above("medium") == tiers_above("code") == ("large",)
    assert tiers_above("large") == ()


@given(WEIGHTS, st.text())
def test_an_arm_is_one_with_a_weight_and_always_the_same(weights: dict[Target, int], key: str) -> None:
    arm = arm_of(weights, key)
    assert arm == arm_of(dict(reversed(weights.items())), key)
    assert (arm is None) == (not any(weights.values()))
    assert arm is None or weights[arm] > 0


@given(st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 100), min_size=2), st.text())
def test_only_the_keys_of_an_arm_that_goes_move(weights: dict[Target, int], key: str) -> None:
    arm = arm_of(weights, key)
    for gone in weights:
        left = {target: weight for target, weight in weights.items() if target != gone}
        assert gone == arm or arm_of(left, key) == arm


@given(st.integers(1, 100), st.integers(1, 100), st.text())
def test_more_weight_takes_keys_and_loses_none(weight: int, more: int, key: str) -> None:
    if arm_of({A: weight, B: 50}, key) == A:
        assert arm_of({A: weight + more, B: 50}, key) == A


@pytest.mark.parametrize("weights", [{A: 50, B: 50}, {A: 1, B: 3}, {A: 10, B: 20, C: 70}])
def test_arms_get_their_shares(weights: dict[Target, int]) -> None:
    counts = Counter(arm_of(weights, f"user {number}") for number in range(10_000))
    for target, weight in weights.items():
        assert counts[target] / 10_000 == pytest.approx(weight / sum(weights.values()), abs=0.015)


def test_what_an_arm_sticks_to() -> None:
    first = [{"role": "system", "content": "same"}, {"role": "user", "content": "question"}]
    longer = [*first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "next"}]
    assert sticky_key("code", {"messages": first}, Hints()) == sticky_key("code", {"messages": longer}, Hints())
    assert sticky_key("code", {"messages": first}, Hints()) != sticky_key("fast", {"messages": first}, Hints())
    by_user = {sticky_key("code", {"messages": each, "user": "u"}, Hints()) for each in (first, [])}
    assert len(by_user) == 1
    assert len({sticky_key("code", {"user": name}, Hints(session="s")) for name in "uv"}) == 1


def test_conversations_with_pictures_are_told_apart() -> None:
    def key(text: str, url: str, user: str = "") -> str:
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return sticky_key("code", {"user": user, "messages": [{"role": "user", "content": parts}]}, Hints())

    assert len({key("a", "data:1"), key("b", "data:1"), key("a", "data:2")}) == 3
    assert len(key("x" * 10_000_000, "y" * 10_000_000)) < 10_000
