from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.engine import tiny
from tests.engine.process import Engine, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per recipe, made once."""
    base = tmp_path_factory.mktemp("models")
    return {name: tiny.make(base / name, recipe) for name, recipe in tiny.RECIPES.items()}


@pytest.fixture(scope="session")
def qwen(folders: dict[str, Path]) -> Path:
    return folders["qwen"]


@pytest.fixture(scope="session")
def engine(folders: dict[str, Path]) -> Iterator[Engine]:
    """The engine that most tests share: all tiny models allowed, none loaded at first."""
    with running("--models", ",".join(map(str, folders.values())), "--keepalive-s", "0.2") as started:
        yield started
