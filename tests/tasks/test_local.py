"""Every shipped task on the real local engine with random weights: the contract holds whatever a model would say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from app.tasks.contract import violations
from app.tasks.schema import shown
from tests.conftest import running
from tests.engine import tiny
from tests.tasks.case import INPUTS, call
from tests.tasks.test_shipped import SHELF

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Running

_ROLES = ("small", "medium", "large", "analysis", "polish", "judge", "fast", "accurate")
_QUICK = ("translation", "language-validation", "map")
_EACH = 100
_AT_ONCE = 20
_DOCUMENT, _TEXT = 250, 40
"""Tokens: random weights fill whatever they are given, and the engine closes a document before the end."""
_FEW = {
    "map": {"posts": INPUTS["map"]["posts"][:4]},
    "medium-scoring": {"posts": INPUTS["medium-scoring"]["posts"][:3]},
    "plan-scoring": {"plans": INPUTS["plan-scoring"]["plans"][:3]},
}
"""Short lists for the tasks that say something of each entry."""


def _settings(folder: Path) -> str:
    model = tiny.make(folder / "model")
    return "".join(f"MODEL_{role.upper()}=mlx/{model}\n" for role in _ROLES)


async def _ask(sluice: Running, name: str, *, seed: int) -> None:
    """Call a task and hold the answer against its contract."""
    inputs = INPUTS[name] | _FEW.get(name, {})
    output = SHELF.tasks[name].spec.output
    limit = _TEXT if output.wanted is None else _DOCUMENT
    told = await call(sluice, f"task/{name}", inputs, seed=seed, temperature=1.0, max_tokens=limit, timeout=600)
    assert told.text.strip()
    if output.format != "json_schema":
        return
    if name == "plan-scoring":  # told apart by the plans' ids
        assert [each["id"] for each in told.json["scores"]] == [plan["id"] for plan in inputs["plans"]]
        return
    assert violations(told.json, shown(output.wanted)) == []


@pytest.mark.timeout(300)
async def test_contracts_hold_with_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with running(tmp_path / ".env", _settings(tmp_path)) as sluice:
        await asyncio.gather(*(_ask(sluice, name, seed=1) for name in _QUICK))


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_contracts_hold_100_of_100_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good: Counter[str] = Counter()
    limiter = asyncio.Semaphore(_AT_ONCE)

    async def one(sluice: Running, name: str, seed: int) -> None:
        async with limiter:
            await _ask(sluice, name, seed=seed)
            good[name] += 1

    began = time.monotonic()
    async with running(tmp_path / ".env", _settings(tmp_path)) as sluice:
        calls = (one(sluice, name, seed) for name in INPUTS for seed in range(_EACH))
        wrong = [each for each in await asyncio.gather(*calls, return_exceptions=True) if each is not None]
    with capsys.disabled():
        for name in INPUTS:
            print(f"{name}: valid {good[name]} of {_EACH}")  # noqa: T201
        print(f"in {time.monotonic() - began:.0f} s")  # noqa: T201
    assert wrong == []
    assert good == dict.fromkeys(INPUTS, _EACH)
