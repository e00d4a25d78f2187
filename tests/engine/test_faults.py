"""The error map: every way in which a model cannot be had, provoked for real."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.fakehub import serving
from tests.engine.process import read_line, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.fakehub import Hub
    from tests.engine.process import Engine

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def hub(qwen: Path) -> Iterator[Hub]:
    with serving(qwen) as started:
        yield started


@pytest.fixture(scope="module")
def online(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = str(tmp_path_factory.mktemp("hf"))
    with running("--allow-any", "--keepalive-s", "0.1", LOCAL_ONLY="", HF_HOME=home, HF_ENDPOINT=hub.url) as engine:
        yield engine


@pytest.mark.parametrize(
    ("model", "status", "code", "remedy"),
    [
        ("org/gated", 401, "model_gated", "set HF_TOKEN"),
        ("org/missing", 404, "model_not_found", "check the spelling"),
        ("org/badrev", 404, "revision_not_found", "name an existing one"),
        ("org/rate", 503, "hub_busy", "again in a minute"),
        ("org/down", 503, "hub_busy", "again later"),
        ("no such name!", 404, "model_not_found", "hub id such as"),
        ("/no/such/folder", 404, "model_not_found", "check the path"),
    ],
)
def test_a_refusal_says_what_to_do(online: Engine, model: str, status: int, code: str, remedy: str) -> None:
    error = online.error("/v1/chat/completions", status, model=model, **ASK)
    assert error["code"] == code
    assert remedy in error["message"]
    assert model in error["message"] or code == "hub_busy"
    about = online.model(model)
    assert about["state"] == "failed"
    assert about["error"]["code"] == code


def test_a_token_without_access_is_told_to_accept_the_licence(hub: Hub, tmp_path: Path) -> None:
    env = {"LOCAL_ONLY": "", "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x"}
    with running("--allow-any", **env) as engine:
        error = engine.error("/v1/chat/completions", 403, model="org/gated", **ASK)
        assert "accept its licence at https://huggingface.co/org/gated" in error["message"]


def test_a_cut_download_says_so(online: Engine) -> None:
    error = online.error("/v1/chat/completions", 503, model="org/cut", **ASK)
    assert error["code"] == "download_cut"


def test_an_unreachable_hub_says_so(tmp_path: Path) -> None:
    env = {"LOCAL_ONLY": "", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    with running("--allow-any", **env) as engine:
        error = engine.error("/v1/chat/completions", 503, model="org/any", **ASK)
        assert error["code"] == "hub_unreachable"


def test_offline_asks_nobody_and_names_the_command(hub: Hub, tmp_path: Path) -> None:
    before = len(hub.requests)
    with running("--allow-any", HF_HOME=str(tmp_path), HF_ENDPOINT=hub.url) as engine:
        error = engine.error("/v1/chat/completions", 503, model="org/ok", **ASK)
        assert error["code"] == "model_not_downloaded"
        assert "hf download org/ok" in error["message"]
    assert len(hub.requests) == before


def test_a_first_call_downloads_then_the_network_is_not_asked_again(online: Engine, hub: Hub) -> None:
    assert online.chat("org/ok", max_tokens=4)["usage"]["completion_tokens"] > 0
    online.post("/admin/unload", model="org/ok")
    before = len(hub.requests)
    assert online.chat("org/ok", max_tokens=4)["usage"]["completion_tokens"] > 0
    assert len(hub.requests) == before


def test_a_stream_is_kept_alive_while_the_model_downloads(online: Engine, hub: Hub) -> None:
    hub.go_on.clear()
    body = {"model": "org/stall", "stream": True, **ASK}
    with online.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(line for line in lines if line.startswith(": downloading") and not line.endswith(" of 0 bytes"))
        assert online.model("org/stall")["total_bytes"] == sum(map(len, hub.files.values()))
        hub.go_on.set()
        assert list(lines)[-2:] == ["data: [DONE]", ""]


def test_a_download_can_be_cancelled(online: Engine, hub: Hub) -> None:
    hub.go_on.clear()
    hub.stalled.clear()
    body = {"model": "org/stall-again", "stream": True}
    with online.http.stream("POST", "/admin/pull", json=body) as response:
        assert hub.stalled.wait(20)
        assert online.post("/admin/unload", model="org/stall-again").json()["state"] == "not_loaded"
        last = [read_line(line) for line in response.iter_lines() if line][-1]
        hub.go_on.set()
    assert last["error"]["code"] == "cancelled"


def broken(base: Path, target: Path, **changes: Any) -> Path:
    """Return a copy of a model with files replaced (bytes), dropped (None) or config keys changed (dict)."""
    shutil.copytree(base, target)
    for name, change in changes.items():
        file = target / {"weights": "model.safetensors", "config": "config.json", "tok": "tokenizer.json"}[name]
        if change is None:
            file.unlink()
        elif isinstance(change, bytes):
            file.write_bytes(change)
        else:
            config = json.loads(file.read_text())
            config |= change
            file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return target


BROKEN: list[tuple[str, dict[str, Any], int, str]] = [
    ("no_config", {"config": None}, 404, "files_missing"),
    ("no_weights", {"weights": None}, 422, "weights_missing"),
    ("no_tokenizer", {"tok": None}, 422, "tokenizer_missing"),
    ("empty_weights", {"weights": b""}, 422, "weights_corrupt"),
    ("lfs_pointer", {"weights": b"version https://git-lfs.github.com/spec/v1\n"}, 422, "weights_corrupt"),
    ("bad_json", {"config": b"{"}, 422, "files_corrupt"),
    ("bad_tokenizer", {"tok": b"{"}, 422, "files_corrupt"),
    ("unknown_architecture", {"config": {"model_type": "martian"}}, 422, "architecture_unknown"),
    ("custom_code", {"config": {"model_file": "evil.py"}}, 422, "custom_code"),
    ("wrong_shapes", {"config": {"hidden_size": 128}}, 422, "weights_mismatch"),
    ("more_layers", {"config": {"num_hidden_layers": 3}}, 422, "weights_mismatch"),
    ("missing_key", {"config": {"num_hidden_layers": ...}}, 422, "config_incomplete"),
]


@pytest.fixture(scope="module")
def anything() -> Iterator[Engine]:
    with running("--allow-any") as engine:
        yield engine


@pytest.mark.parametrize(("name", "changes", "status", "code"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_folder_says_what_is_wrong(
    anything: Engine, qwen: Path, tmp_path: Path, name: str, changes: dict[str, Any], status: int, code: str
) -> None:
    folder = broken(qwen, tmp_path / name, **changes)
    error = anything.error("/v1/chat/completions", status, model=str(folder), **ASK)
    assert error["code"] == code, error
    assert str(folder) in error["message"]


def test_cut_weights_are_found_before_loading(anything: Engine, qwen: Path, tmp_path: Path) -> None:
    whole = (qwen / "model.safetensors").read_bytes()
    folder = broken(qwen, tmp_path / "cut", weights=whole[: len(whole) // 2])
    error = anything.error("/v1/chat/completions", 422, model=str(folder), **ASK)
    assert error["code"] == "weights_corrupt"


def test_a_model_over_the_budget_says_how_much_it_needs(folders: dict[str, Path]) -> None:
    with running("--models", str(folders["big"]), "--memory-gb", "0.02") as engine:
        error = engine.error("/v1/chat/completions", 507, model=str(folders["big"]), **ASK)
        assert error["code"] == "insufficient_memory"
        assert "MLX_MEMORY_GB" in error["message"]


def test_a_name_off_the_list_never_starts_a_download(engine: Engine, qwen: Path) -> None:
    error = engine.error("/v1/chat/completions", 404, model="org/other", **ASK)
    assert error["code"] == "model_not_found"
    assert str(qwen) in error["message"]
    assert "org/other" not in engine.get("/health")["models"]
