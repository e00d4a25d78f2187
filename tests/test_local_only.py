"""A gateway that is told to stay on this machine, and one that has no engine to run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.engine import tiny
from tests.local import serving


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("models") / "qwen", tiny.QWEN)


def test_local_only_makes_no_outgoing_connection(qwen: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    traced = tmp_path / "connects"
    text = (
        f"LOCAL_ONLY=true\nMODEL_SMALL=mlx/{qwen}\nMODEL_MEDIUM=mlx/org/absent\nGROQ_API_KEY=gsk_x\nOPENAI_API_KEY=x\n"
        "BACKENDS__FAR__BASE_URL=http://192.0.2.1/v1\nROLES__FAR=far/m\n"
    )
    command = (
        "strace",
        "-f",
        "-D",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=connect,sendto",
        "-e",
        "signal=none",
        "-o",
        str(traced),
    )
    with serving(tmp_path, text, *command, HF_HOME=str(tmp_path / "hub")) as served:
        assert served.chat("small", max_tokens=4).headers["x-sluice-target"] == f"mlx/{qwen}"
        assert served.chat("auto", "prove that there is no largest prime", max_tokens=4).status_code == 200
        for remote in ("far", "groq/m", "code"):
            refused = served.chat(remote)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "local_only"), remote
        absent = served.chat("mlx/org/absent")
        assert absent.status_code == 503
        assert absent.json()["error"]["code"] == "model_not_downloaded"
        assert "hf download org/absent" in absent.json()["error"]["message"]
        assert served.http.get("/health/ready").json()["models"]["mlx/org/absent"]["state"] == "failed"
    seen = traced.read_text()
    assert "engine.sock" in seen
    assert re.findall(r".*AF_INET.*", seen) == []


_HIDES = """
import importlib.machinery

real = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {"mlx", "mlx_lm"} else real(name, path, target)

importlib.machinery.PathFinder.find_spec = find_spec
"""


def test_without_the_extra_the_gateway_serves_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_HIDES)
    with serving(tmp_path, "", PYTHONPATH=str(tmp_path)) as served:
        refused = served.chat("small")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_usable_backend")
        assert "install the extra [local]" in refused.json()["error"]["message"]
        ready = served.http.get("/health/ready")
        assert ready.json()["backends"]["mlx"]["status"] == "unusable"
        assert ready.json()["models"] == {}
        assert served.http.post("/admin/models/load", json={"model": "mlx/x"}).status_code == 503
        assert served.http.get("/metrics").status_code == 200
        assert re.search(r"- mlx +install the extra \[local\]", served.log.read_text())
