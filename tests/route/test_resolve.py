from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.call import Target, Verdict
from app.errors import CallerError
from app.route.resolve import chain_of, resolve
from tests.route.table import ask, settings

if TYPE_CHECKING:
    from pathlib import Path

CHAT = Verdict("chat", 1)
FULL = Target("openrouter", "qwen/qwen-2.5-72b-instruct")


def targets(name: str, tmp_path: Path, text: str = "") -> list[str]:
    return [str(each.target) for each in resolve(name, "chat", CHAT, settings(tmp_path, text)).choices]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("auto", ["up/small"]),
        ("AUTO", ["up/small"]),
        ("Code", ["up/code"]),
        ("up/any/thing:7b", ["up/any/thing:7b"]),
        ("UP/Any", ["up/Any"]),
        ("nobody-knows-this", ["up/small"]),
        ("nobody/knows", ["up/small"]),
        ("up/", ["up/small"]),
        ("code@50", ["up/small"]),
    ],
)
def test_names(name: str, found: list[str], tmp_path: Path) -> None:
    assert targets(name, tmp_path) == found


@pytest.mark.parametrize(
    ("meaning", "found", "role"),
    [
        ("large", ["up/large"], "large"),
        ("AUTO", ["up/small"], "small"),
        ("up/x,near/y", ["up/x", "near/y"], None),
        ("up/x@1,near/y@3", ["up/x", "near/y"], None),
        ("openrouter/qwen-2.5-72b", [str(FULL)], None),
    ],
)
def test_aliases(meaning: str, found: list[str], role: str | None, tmp_path: Path) -> None:
    made = settings(tmp_path, f'MODEL_ALIASES={{"gpt-4o": "{meaning}"}}\n')
    chain = resolve("gpt-4o", "chat", CHAT, made)
    assert ([str(each.target) for each in chain.choices], chain.role) == (found, role)
    assert "'gpt-4o' is an alias of" in chain.why


@pytest.mark.parametrize("configured", ["qwen/qwen-2.5-72b-instruct", "qwen-2.5-72b", "qwen-2.5-72b-instruct"])
@pytest.mark.parametrize(
    "name", ["qwen-2.5-72b", "qwen/qwen-2.5-72b", "qwen/qwen-2.5-72b-instruct", "openrouter/qwen-2.5-72b", "analysis"]
)
def test_short_and_full_names_are_one_target(configured: str, name: str, tmp_path: Path) -> None:
    text = f"MODEL_ANALYSIS=openrouter/{configured}\nOPENROUTER_API_KEY=k\n"
    assert targets(name, tmp_path, text) == [str(FULL)]


def test_a_configured_model_is_known_by_its_bare_name(tmp_path: Path) -> None:
    assert targets("Tiny-Model", tmp_path, "ROLES__X=near/vendor/tiny-model-instruct\n") == [
        "near/vendor/tiny-model-instruct"
    ]


def test_unknown_names_are_an_error_where_the_operator_says_so(tmp_path: Path) -> None:
    with pytest.raises(CallerError) as caught:
        targets("nobody-knows-this", tmp_path, "UNKNOWN_MODEL=error\n")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_models_is_a_chain_of_all(tmp_path: Path) -> None:
    chain = chain_of(ask(model="small", models=["up/x", "code"]), CHAT, settings(tmp_path))
    assert [str(each.target) for each in chain.choices] == ["up/small", "up/x", "up/code"]
    assert chain.role == "small"
    alone = chain_of(ask(model="", models=["up/x"]), CHAT, settings(tmp_path))
    assert (str(alone.choices[0].target), alone.role) == ("up/x", None)
