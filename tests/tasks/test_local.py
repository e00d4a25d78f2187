"""Every shipped task on the real local engine with random weights: the contract holds whatever a model would say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.conftest import running
from tests.engine import tiny
from tests.tasks.case import INPUTS, call
from tests.tasks.test_shipped import _keeps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Running

_ROLES = ("small", "medium", "large", "analysis", "polish", "judge", "fast", "accurate")
_QUICK = ("translation", "language-validation", "map")
_AT_ONCE = 4
_SHORT = 250
"""Tokens: random weights fill whatever they are given, and the engine closes the document before the end."""


def _settings(folder: Path) -> str:
    model = tiny.make(folder / "model")
    return "".join(f"MODEL_{role.upper()}=mlx/{model}\n" for role in _ROLES)


async def _ask(sluice: Running, name: str, *, seed: int) -> None:
    limits: Any = {"max_tokens": _SHORT * _factor(name), "timeout": 600}
    told = await call(sluice, f"task/{name}", INPUTS[name], seed=seed, temperature=1.0, **limits)
    _keeps(name, told.text)


def _factor(name: str) -> int:
    """Tasks that say something of each of a list need room for each."""
    return {"plan-scoring": 6, "medium-scoring": 3}.get(name, 1)


@pytest.mark.timeout(300)
async def test_contracts_hold_with_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with running(tmp_path / ".env", _settings(tmp_path)) as sluice:
        for name in _QUICK:
            await _ask(sluice, name, seed=1)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_contracts_hold_100_of_100_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good: Counter[str] = Counter()
    began = time.monotonic()
    async with running(tmp_path / ".env", _settings(tmp_path)) as sluice:
        for name in INPUTS:
            for first in range(0, 100, _AT_ONCE):
                await asyncio.gather(*(_ask(sluice, name, seed=seed) for seed in range(first, first + _AT_ONCE)))
                good[name] += _AT_ONCE
    with capsys.disabled():
        for name, count in good.items():
            print(f"{name}: contract kept {count} of 100 times")  # noqa: T201
        print(f"in {time.monotonic() - began:.0f} s")  # noqa: T201
    assert good == dict.fromkeys(INPUTS, 100)
