from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import hardware
from tests import forks
from tests.local import free_port
from tests.upstream import Upstream


async def _doctor(tmp_path: Path, text: str, *options: str) -> tuple[int, str]:
    env = tmp_path / ".env"
    env.write_text(text)
    done = await asyncio.to_thread(forks.run, "app", "doctor", "--env-file", str(env), *options)
    return done.returncode, done.stdout


async def _findings(tmp_path: Path, text: str) -> tuple[int, dict[str, dict[str, str]]]:
    status, out = await _doctor(tmp_path, text, "--json")
    found: list[Any] = json.loads(out)
    return status, {each["about"]: each for each in found}


async def test_a_healthy_gateway(tmp_path: Path) -> None:
    async with Upstream(key="good") as up:
        text = f"BACKENDS__UP__BASE_URL={up.url}\nBACKENDS__UP__API_KEY=good\nMODEL_LARGE=up/large\n"
        status, found = await _findings(tmp_path, text)
        assert status == 0
        assert (found["up"]["level"], found["up"]["told"]) == ("ok", f"{up.url} answers (200)")
        assert "large" in found["roles"]["told"]
        assert found["groq"]["remedy"] == "set GROQ_API_KEY"
        assert not any("chat" in attempt.path for attempt in up.log)  # no model was called
        status, out = await _doctor(tmp_path, text)
        assert status == 0
        assert f"+ up           {up.url} answers (200)" in out.splitlines()


async def test_a_wrong_key_and_a_wrong_address_are_problems_where_a_role_uses_them(tmp_path: Path) -> None:
    async with Upstream(key="good") as up:
        nobody = f"http://127.0.0.1:{free_port()}/v1"
        text = (
            f"BACKENDS__UP__BASE_URL={up.url}\nBACKENDS__UP__API_KEY=bad-key\nMODEL_LARGE=up/large,gone/m\n"
            f"BACKENDS__GONE__BASE_URL={nobody}\nBACKENDS__IDLE__BASE_URL={nobody}\n"
        )
        status, out = await _doctor(tmp_path, text, "--json")
        found = {each["about"]: each for each in json.loads(out)}
        assert status == 1
        assert (found["up"]["level"], found["up"]["remedy"]) == ("problem", "set a valid key")
        assert (found["gone"]["level"], found["idle"]["level"]) == ("problem", "note")
        assert "bad-key" not in out


@pytest.mark.skipif(hardware.missing_engine() is not None, reason="the extra 'local' is not installed")
async def test_local_models_are_told_with_why_and_whether_they_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    status, found = await _findings(tmp_path, f"MODEL_MEDIUM=mlx/{tmp_path}\n")
    small = hardware.local_models()[0]
    assert status == 0
    assert found["local models"]["told"].startswith(small)
    assert ("OpenBLAS" in found) == (sys.platform == "linux")
    assert found["downloads"]["remedy"] == f"before that: hf download {small.removeprefix('mlx/')}"
    assert str(tmp_path) in found["disk"]["told"]
    status, found = await _findings(tmp_path, "LOCAL_ONLY=true\nMLX_OPENBLAS=off\n")
    assert found.get("OpenBLAS", {"level": "note"})["level"] == "note"
    assert (status, found["downloads"]["level"]) == (1, "problem")


async def test_without_anything_usable_it_says_what_to_set(tmp_path: Path) -> None:
    status, found = await _findings(tmp_path, "MLX_ENABLED=false\nOLLAMA_ENABLED=false\n")
    assert status == 1
    assert (found["roles"]["level"], found["local models"]["remedy"]) == ("problem", "MLX_ENABLED is false")


async def test_each_engine_elsewhere_is_asked(tmp_path: Path) -> None:
    async with Upstream(key="sesame") as up:
        url = up.url.removesuffix("/v1")
        nobody = f"http://127.0.0.1:{free_port()}"
        status, out = await _doctor(
            tmp_path,
            f"MLX_ENGINES={url},{nobody}\nENGINE_KEY=sesame\nMODEL_SMALL=mlx/m\nMODEL_MEDIUM=mlx/m\n",
            "--json",
        )
        told = [(each["level"], each["told"]) for each in json.loads(out) if each["about"] == "mlx"]
        assert status == 1
        assert told == [("ok", f"{up.url} answers (200)"), ("problem", f"{nobody}/v1 cannot be reached: ConnectError")]
