from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from app.settings import hardware, load

_GIB = 1 << 30
_PHI = "mlx/mlx-community/Phi-3.5-mini-instruct-4bit"
_SEVEN = "mlx/mlx-community/Qwen2.5-7B-Instruct-4bit"
_HALF = "mlx/Qwen/Qwen2.5-0.5B-Instruct"


@pytest.mark.parametrize(
    ("system", "machine", "gib", "models"),
    [
        ("darwin", "arm64", 64, (_PHI, _SEVEN)),
        ("darwin", "arm64", 16, (_PHI, _SEVEN)),
        ("darwin", "arm64", 8, (_PHI, _PHI)),
        ("darwin", "arm64", 0, (_PHI, _PHI)),
        ("darwin", "x86_64", 64, (_HALF, _HALF)),
        ("linux", "x86_64", 512, (_HALF, _HALF)),
        ("linux", "aarch64", 4, (_HALF, _HALF)),
    ],
)
def test_the_models_fit_the_hardware(system: str, machine: str, gib: int, models: tuple[str, str]) -> None:
    assert hardware.choose(system, machine, gib * _GIB) == models


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory it has in /proc/meminfo")
def test_the_memory_is_the_machines() -> None:
    told = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert hardware.memory_bytes() == pytest.approx(int(told.split()[1]) * 1024, rel=0.02)


def test_small_and_medium_are_local_by_default_and_the_operators_word_wins(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("MODEL_MEDIUM=groq/m\n")
    chains = load(env).chains
    assert str(chains["small"][0].target) == hardware.local_models()[0]
    assert [str(each.target) for each in chains["medium"]] == ["groq/m"]


def test_engines_elsewhere_need_nothing_here(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("MLX_ENGINES=http://mac1:9000,http://mac2:9000/\nMODEL_SMALL=mlx/org/m\n")
    config = load(env).backend_configs["mlx"]
    assert config.problem is None
    assert not config.local
    assert config.engines == ("http://mac1:9000", "http://mac2:9000")
    env.write_text("MLX_ENGINES=http://mac1:9000\nLOCAL_ONLY=true\n")
    assert "LOCAL_ONLY" in (load(env).backend_configs["mlx"].problem or "")


def test_without_the_extra_the_problem_says_what_to_install() -> None:
    found = importlib.util.find_spec("mlx_lm")
    assert (hardware.missing_engine() is None) is (found is not None)


def test_what_the_operator_names_anywhere_may_be_loaded(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(
        "MODEL_SMALL=mlx/org/a\nROLES__MINE=groq/x,mlx//models/b\nMLX_MODELS=org/c\nMLX_PRELOAD=org/d\nMLX_PIN=org/e\n"
        'MODEL_EMBEDDING=mlx/org/f\nMODEL_MEDIUM=groq/m\nMODEL_ALIASES={"gpt-4o": "mlx/org/g", "o1": "small"}\n'
    )
    assert load(env).backend_configs["mlx"].models == {"org/a", "/models/b", *(f"org/{name}" for name in "cdefg")}
    env.write_text("MLX_ALLOW_ANY=true\n")
    assert load(env).backend_configs["mlx"].models is None
