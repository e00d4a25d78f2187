from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from app import roles
from app.roles import RolesError, change, undo
from app.settings import ConfigError, load

if TYPE_CHECKING:
    from pathlib import Path

ANALYSIS = "openrouter/qwen/qwen-2.5-72b-instruct"


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text("# mine\nGROQ_API_KEY=k\nMODEL_CODE=groq/a # cheap\nROLES__DEEP_THOUGHT=groq/deep\n")
    return path


@pytest.mark.parametrize("name", ["ANALYSIS", "analysis", "MODEL_ANALYSIS", "model_analysis", " Analysis "])
def test_names_in_every_spelling(env: Path, name: str) -> None:
    (made,) = change(env, [f"{name}=groq/other"])
    assert (made.variable, made.before, made.after) == ("MODEL_ANALYSIS", None, "groq/other")
    assert str(load(env).chains["analysis"][0].target) == "groq/other"
    assert env.read_text().startswith("# mine\nGROQ_API_KEY=k\nMODEL_CODE=groq/a # cheap\n")


def test_undo_goes_back_step_by_step(env: Path) -> None:
    before = env.read_text()
    change(env, ["CODE=groq/b"])
    change(env, ["CODE=groq/c@50,groq/d@50", "ANALYSIS=groq/x"])
    assert "MODEL_CODE=groq/c@50,groq/d@50 # cheap\n" in env.read_text()
    assert {each.variable for each in undo(env)} == {"MODEL_CODE", "MODEL_ANALYSIS"}
    assert "MODEL_CODE=groq/b # cheap\n" in env.read_text()
    assert "MODEL_ANALYSIS" not in env.read_text()
    undo(env)
    assert env.read_text() == before
    with pytest.raises(RolesError, match="nothing to undo"):
        undo(env)


def test_the_operators_own_roles(env: Path) -> None:
    change(env, ["deep-thought=groq/deeper"])
    assert "ROLES__DEEP_THOUGHT=groq/deeper\n" in env.read_text()
    change(env, ["roles__new=groq/n"])
    assert str(load(env).chains["new"][0].target) == "groq/n"
    undo(env)
    assert "new" not in load(env).chains


def test_the_other_name_of_a_role_is_kept(env: Path) -> None:
    env.write_text("AI_MODEL_FAST=groq/a\n")
    change(env, ["FAST=groq/b", "ACCURATE=groq/c"])
    assert env.read_text() == "AI_MODEL_FAST=groq/b\nMODEL_ACCURATE=groq/c\n"


def test_an_empty_value_is_the_default(env: Path) -> None:
    change(env, ["CODE="])
    assert "MODEL_CODE" not in env.read_text()
    assert str(load(env).chains["code"][0].target) == "runloop/qwen2.5-coder"
    undo(env)
    assert str(load(env).chains["code"][0].target) == "groq/a"


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        (["ANALYSYS=groq/x"], "there is no role 'ANALYSYS'"),
        (["CODE"], "sets nothing"),
        (["CODE=nobody/x"], "there is no backend 'nobody'"),
        (["CODE=noslash"], "is not a target"),
        (["ANALYSIS=groq/fine", "CODE=nobody/x"], "there is no backend 'nobody'"),
        ([], "say what to set"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(env: Path, assignments: list[str], why: str) -> None:
    before = env.read_text()
    with pytest.raises((RolesError, ConfigError), match=why):
        change(env, assignments)
    assert env.read_text() == before
    assert not env.with_name(".env.previous").exists()


@pytest.mark.parametrize("name", ["MODEL_FAST", "AI_MODEL_FAST", "model_fast"])
def test_what_the_environment_shadows_is_refused(env: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change(env, ["FAST=groq/a"])
    before = env.read_text()
    monkeypatch.setenv(name, "groq/shadow")
    with pytest.raises(RolesError, match=f"the environment sets {name}=groq/shadow"):
        change(env, ["FAST=groq/b"])
    with pytest.raises(RolesError, match="the environment sets"):
        undo(env)
    assert env.read_text() == before
    (fast,) = (each for each in roles.roles(load(env)) if each.role == "fast")
    assert (fast.shadowed, fast.serves) == (True, "groq/shadow")


def test_undo_to_what_is_no_longer_usable_is_refused(env: Path) -> None:
    env.write_text("BACKENDS__BOX__BASE_URL=http://127.0.0.1:1/v1\nMODEL_CODE=box/a\n")
    change(env, ["CODE=groq/b"])
    env.write_text("MODEL_CODE=groq/b\n")
    with pytest.raises(ConfigError, match="there is no backend 'box'"):
        undo(env)
    assert env.read_text() == "MODEL_CODE=groq/b\n"


def test_the_history_is_the_owners_and_a_damaged_one_is_told(env: Path) -> None:
    change(env, ["CODE=groq/b"])
    history = env.with_name(".env.previous")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    for damage in ("{", "[3]", '[{"changes": [{"variable": "X"}]}]'):
        history.write_text(damage)
        with pytest.raises(RolesError, match="cannot be read"):
            undo(env)
        with pytest.raises(RolesError, match="cannot be read"):
            change(env, ["CODE=groq/c"])
    assert "groq/b" in env.read_text()


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    change(path, [f"ANALYSIS={ANALYSIS.replace('72b', '7b')}"])
    assert path.read_text() == "MODEL_ANALYSIS=openrouter/qwen/qwen-2.5-7b-instruct\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saying_the_same_again_is_no_step(env: Path) -> None:
    assert change(env, ["CODE=groq/a"]) == []
    with pytest.raises(RolesError, match="nothing to undo"):
        undo(env)


def test_every_role_is_told(env: Path) -> None:
    env.write_text(env.read_text() + "MODEL_SMALL=openai/none,groq/s@50,groq/t@0\n")
    found = {each.role: each for each in roles.roles(load(env))}
    assert found["small"].chain == ("openai/none", "groq/s@50", "groq/t@0")
    assert (found["small"].serves, found["small"].unusable) == ("groq/s", {"openai": "set OPENAI_API_KEY"})
    assert (found["embedding"].chain, found["embedding"].serves) == ((), None)
    assert found["deep-thought"].variable == "ROLES__DEEP_THOUGHT"
    assert found["judge"].chain == found["large"].chain
    table = roles.as_table(found.values())
    assert "embedding      not set" in table
    assert "MODEL_SMALL=openai/none,groq/s@50,groq/t@0" in table
