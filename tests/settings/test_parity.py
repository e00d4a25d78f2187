from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import ConfigError, Live, load


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_a_role_names_its_reference(env: Path) -> None:
    env.write_text(
        "ROLES__DEEP_THOUGHT=groq/a\nPARITY__DEEP_THOUGHT__REFERENCE=openrouter/b/c\n"
        "PARITY__ANALYSIS__REFERENCE=groq/x\nPARITY__ANALYSIS__MARGIN=0.05\nPARITY__ANALYSIS__SHARE=1\n"
    )
    parity = load(env).parity
    assert parity["deep-thought"].reference == "openrouter/b/c"
    assert (parity["deep-thought"].margin, parity["deep-thought"].share) == (None, None)
    assert (parity["analysis"].reference, parity["analysis"].margin, parity["analysis"].share) == ("groq/x", 0.05, 1.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("PARITY__ANALYSYS__REFERENCE=groq/x", "PARITY__ANALYSYS__REFERENCE: there is no role 'analysys'"),
        ("PARITY__ANALYSIS__REFERENCE=nobody/x", "there is no backend 'nobody'"),
        ("PARITY__ANALYSIS__REFERENCE=x", "'x' is not a target"),
        ("PARITY__ANALYSIS__MARGIN=0.02", "PARITY__ANALYSIS__REFERENCE: '' is not a target"),
        ("PARITY__ANALYSIS__REFERENCE=groq/x\nPARITY__ANALYSIS__MARGIN=2", "PARITY__ANALYSIS__MARGIN"),
        ("PARITY__ANALYSIS__REFERENS=groq/x", "the options of a role's parity are REFERENCE, MARGIN, SHARE"),
        ("PARITY_MARGIN=0", "PARITY_MARGIN"),
        ("SHADOW_SHARE=1.5", "SHADOW_SHARE"),
        ("SHADOW_USD_PER_DAY=-1", "SHADOW_USD_PER_DAY"),
    ],
)
def test_mistakes_are_told_by_name(env: Path, text: str, why: str) -> None:
    env.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(env)
    assert why in str(caught.value)


def test_what_is_laid_over_stays_through_reloads(env: Path) -> None:
    env.write_text("MODEL_FAST=groq/a\nMODEL_CODE=groq/c\n")
    live = Live(env)
    live.overlay = lambda loaded: loaded.model_copy(update={"model_fast": f"{loaded.model_fast}-over"})
    live.lay_over()
    assert (live.current.model_fast, live.loaded.model_fast, live.generation) == ("groq/a-over", "groq/a", 1)
    live.lay_over()
    assert live.generation == 1
    env.write_text("MODEL_FAST=groq/b\nMODEL_CODE=groq/c\n")
    assert live.reload()
    assert (live.current.model_fast, live.generation) == ("groq/b-over", 2)
