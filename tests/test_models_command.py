"""``sluice models`` against a gateway that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests import forks
from tests.engine import fakehub, tiny
from tests.engine.process import environment
from tests.local import Served, free_port, serving


def _models(env_file: Path, *arguments: str) -> tuple[int, str]:
    env = {**environment(COLUMNS="300"), "LOCAL_ONLY": "false"}
    done = forks.run("app", "models", *arguments, "--env-file", str(env_file), env=env)
    return done.returncode, done.stdout + done.stderr


def _state(served: Served, model: str) -> str:
    state: str = served.http.get("/admin/models").json()["models"][model]["state"]
    return state


def test_pull_load_unload_and_list(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "qwen", tiny.QWEN)
    env_file = tmp_path / ".env"
    with fakehub.serving(folder) as hub:
        text = "MODEL_SMALL=mlx/org/small\nMODEL_MEDIUM=mlx/org/missing\nADMIN_KEY=letmein\n"
        with serving(tmp_path, text, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hub")) as served:
            served.http.headers["authorization"] = "Bearer letmein"
            assert _state(served, "mlx/org/small") == "absent"
            assert hub.requests == []
            status, out = _models(env_file, "pull", "org/small")
            assert (status, out.splitlines()[-1]) == (0, "org/small: not_loaded")
            assert any("safetensors" in path for path in hub.requests)
            asked = len(hub.requests)
            assert _models(env_file, "load", "mlx/org/small")[0] == 0
            assert _state(served, "mlx/org/small") == "ready"
            status, out = _models(env_file, "list")
            assert status == 0
            assert [line.split()[1:5:2] for line in out.splitlines() if "org/small" in line] == [
                ["mlx/org/small", "ready"]
            ]
            assert _models(env_file, "unload", "org/small")[0] == 0
            assert _state(served, "mlx/org/small") == "not_loaded"
            assert len(hub.requests) == asked  # what is here is not asked for again
            status, out = _models(env_file, "pull", "org/missing")
            assert status == 1
            assert "org/missing is not on the Hugging Face Hub" in out
            assert served.chat("small", max_tokens=2).status_code == 200


def test_without_a_gateway_it_says_how_to_start_one(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"PORT={free_port()}\n")
    for arguments in (("list",), ("load", "org/m")):
        status, out = _models(env_file, *arguments)
        assert status == 1
        assert "start it with scripts/serve" in out


def test_the_wrong_admin_key_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, "MLX_ENABLED=false\nADMIN_KEY=letmein\n") as served:
        env_file = tmp_path / "other.env"
        env_file.write_text(f"PORT={served.http.base_url.port}\nADMIN_KEY=wrong\n")
        for arguments in (("list",), ("load", "org/m")):
            status, out = _models(env_file, *arguments)
            assert status == 1
            assert "Traceback" not in out
            assert "ADMIN_KEY" in out
