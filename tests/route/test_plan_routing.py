from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.call import Hints, Plan
from app.errors import CallerError, PolicyError, SluiceError
from app.route.plan import make_plan
from tests.route.table import Table, ask, settings, verdict

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = [{"type": "function", "function": {"name": "f", "description": "x" * 4000}}]


def plan(tmp_path: Path, text: str = "", table: Table | None = None, **more: Any) -> Plan:
    judged = {name: more.pop(name) for name in ("kind", "complexity") if name in more}
    asked = ask(**more)
    return make_plan(asked, verdict(asked.body["messages"], **judged), settings(tmp_path, text), table or Table())


def names(found: Plan) -> list[str]:
    return [str(each) for each in found.candidates]


def test_a_smaller_model_before_a_bill(tmp_path: Path) -> None:
    assert names(plan(tmp_path, complexity=6))[:3] == ["up/medium", "up/small", "up/large"]
    assert names(plan(tmp_path, complexity=2))[:3] == ["up/small", "up/medium", "up/large"]
    assert names(plan(tmp_path, complexity=None))[0] == "up/large"


def test_roles_out_of_use_are_passed_over_and_said(tmp_path: Path) -> None:
    found = plan(tmp_path, "MODEL_SMALL=openai/none\nMODEL_MEDIUM=up/medium\n")
    assert (names(found)[0], found.role) == ("up/medium", "medium")
    assert [(str(target), why) for target, why in found.skipped] == [("openai/none", "set OPENAI_API_KEY")]
    assert "no target of small can serve, so medium does" in found.why


def test_a_role_that_was_named_goes_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(SluiceError) as caught:
        plan(tmp_path, "MODEL_SMALL=openai/none\n", model="small")
    assert (caught.value.status, caught.value.code) == (503, "no_usable_backend")


@pytest.mark.parametrize(
    ("text", "model", "on_weak"),
    [
        ("", "auto", "polish"),
        ("ON_WEAK=serve\n", "auto", "serve"),
        ('ON_WEAK_BY_ROLE={"small": "escalate"}\n', "auto", "escalate"),
        ('ON_WEAK_BY_ROLE={"large": "escalate"}\n', "auto", "polish"),
        ("", "up/small", "serve"),
    ],
)
def test_what_becomes_of_a_weak_answer(tmp_path: Path, text: str, model: str, on_weak: str) -> None:
    found = plan(tmp_path, text, model=model)
    assert (found.on_weak, found.check) == (on_weak, model == "auto")


class TestArms:
    WEIGHTS = "MODEL_CODE=up/first,up/a@1,near/b@1\n"

    def test_the_arm_comes_first_and_the_chain_stays(self, tmp_path: Path) -> None:
        seen = set()
        for number in range(20):
            found = plan(tmp_path, self.WEIGHTS, model="code", user=str(number))
            seen.add(names(found)[0])
            assert str(found.arm) == names(found)[0]
            assert sorted(names(found)) == ["near/b", "up/a", "up/first"]
        assert seen == {"up/a", "near/b"}

    @pytest.mark.parametrize("off", ["LOCAL_ONLY=true\n", "BACKENDS__UP__ENABLED=false\n"])
    def test_an_arm_that_cannot_serve_leaves_its_share(self, tmp_path: Path, off: str) -> None:
        arms = {str(plan(tmp_path, self.WEIGHTS + off, model="code", user=str(n)).arm) for n in range(20)}
        assert arms == {"near/b"}

    def test_so_does_one_that_lacks_an_ability(self, tmp_path: Path) -> None:
        table = Table(lacking={"a": {"n"}})
        arms = {str(plan(tmp_path, self.WEIGHTS, table, model="code", user=str(n), n=2).arm) for n in range(20)}
        assert arms == {"near/b"}

    def test_an_alias_may_weigh(self, tmp_path: Path) -> None:
        text = 'MODEL_ALIASES={"gpt-4o": "up/a@1,up/b@1"}\n'
        arms = {str(plan(tmp_path, text, model="gpt-4o", user=str(number)).arm) for number in range(20)}
        assert arms == {"up/a", "up/b"}

    def test_no_weights_no_arm(self, tmp_path: Path) -> None:
        found = plan(tmp_path, "MODEL_CODE=up/a@0,up/b\n", model="code")
        assert (found.arm, names(found)) == (None, ["up/a", "up/b"])

    def test_a_session_sticks_across_users(self, tmp_path: Path) -> None:
        arms = {plan(tmp_path, self.WEIGHTS, model="code", user=u, hints=Hints(session="s")).arm for u in "abcdefgh"}
        assert len(arms) == 1


class TestAbilities:
    def test_who_lacks_one_is_skipped_with_the_reason(self, tmp_path: Path) -> None:
        found = plan(tmp_path, table=Table(lacking={"small": {"tools", "n"}}), tools=TOOLS)
        assert names(found)[0] == "up/medium"
        assert ("up/small", "cannot do tools") in [(str(target), why) for target, why in found.skipped]

    def test_an_error_only_if_none_is_left(self, tmp_path: Path) -> None:
        with pytest.raises(CallerError) as caught:
            plan(
                tmp_path,
                table=Table(lacking={"small": {"schema"}}),
                model="small",
                response_format={"type": "json_schema"},
            )
        assert (caught.value.status, caught.value.param) == (400, "response_format")


class TestLocal:
    def test_local_only_forbids(self, tmp_path: Path) -> None:
        for model in ("auto", "code", "up/x", "groq/x"):
            with pytest.raises(PolicyError) as caught:
                plan(tmp_path, "LOCAL_ONLY=true\nMLX_ENABLED=false\nOLLAMA_ENABLED=false\n", model=model)
            assert (caught.value.status, caught.value.code) == (403, "local_only")

    def test_force_local_takes_one_side_only(self, tmp_path: Path) -> None:
        both = "MODEL_SMALL=up/far,near/by\n"
        assert names(plan(tmp_path, both, model="small")) == ["up/far", "near/by"]
        assert names(plan(tmp_path, both + "FORCE_LOCAL_LLM=true\n", model="small")) == ["near/by"]
        assert names(plan(tmp_path, both + "FORCE_LOCAL_LLM=false\n", model="small")) == ["up/far"]


def long(tokens: int) -> list[dict[str, Any]]:
    """Ten turns of about so many tokens in all."""
    text = "x" * (tokens * 4 // 10)
    return [{"role": "user" if number % 2 == 0 else "assistant", "content": text} for number in range(11)]


class TestWindows:
    def test_a_short_call_asks_nobody_for_a_window(self, tmp_path: Path) -> None:
        assert names(plan(tmp_path, table=Table(windows={"small": 8})))[0] == "up/small"

    def test_too_small_a_window_is_skipped(self, tmp_path: Path) -> None:
        table = Table(windows={"small": 4096})
        found = plan(tmp_path, table=table, messages=long(5000))
        assert (names(found)[0], found.dropped_turns, found.messages) == ("up/medium", 0, None)
        assert "its window of 4096 tokens is too small" in dict(found.skipped).values()

    def test_room_for_the_answer_and_the_tools_counts(self, tmp_path: Path) -> None:
        table, messages = Table(windows={"small": 4096}), long(2600)
        assert names(plan(tmp_path, table=table, messages=messages))[0] == "up/small"
        assert names(plan(tmp_path, table=table, messages=messages, max_tokens=2000))[0] == "up/medium"
        assert names(plan(tmp_path, table=table, messages=messages, tools=TOOLS))[0] == "up/medium"

    def test_turns_are_dropped_for_the_largest_window_where_all_are_too_small(self, tmp_path: Path) -> None:
        table = Table(windows={"a": 4096, "b": 8192, "c": 8192})
        found = plan(tmp_path, "MODEL_SMALL=up/a,up/b,up/c\n", table, model="small", messages=long(20000))
        assert names(found) == ["up/b", "up/c"]
        assert found.messages is not None
        assert 0 < found.dropped_turns < 6
        assert len(found.messages) < 11
        assert f"the {found.dropped_turns} oldest turns do not fit and are left out" in found.why
        assert "its window of 4096 tokens is too small" in dict(found.skipped).values()

    def test_a_newest_turn_that_is_too_long_is_left_to_the_backend(self, tmp_path: Path) -> None:
        messages = [{"role": "user", "content": "x" * 100_000}]
        found = plan(tmp_path, table=Table(windows={"small": 4096}), model="small", messages=messages)
        assert (found.messages, names(found)) == (None, ["up/small"])
