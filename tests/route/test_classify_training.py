"""The training script: same bytes twice, refused licences stay out, the confusion set is not among its prompts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train-classifier"


def train(directory: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--data", str(directory), "--out", str(out), "--no-report"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script's loader; it stands beside the script, outside the package, and needs no scikit-learn."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("classifier.data")


def write_rows(directory: Path, licence: str) -> None:
    asks = [("Write a Python function", 1), ("Write a poem about rain", 0), ("Sort this list in Go", 1)] * 5
    rows = [
        {"prompt": f"{text} {number}", "label": label, "source": "own", "lang": "en", "license": licence}
        for number, (text, label) in enumerate(asks)
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    (directory / "code_intent_train.jsonl").write_text(lines, "utf-8")


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "MIT / CC-BY-SA-3.0", "CC-BY-ND-4.0", "GPL-3.0", "research only"])
def test_rows_under_other_licences_are_left_out(data: Any, tmp_path: Path, licence: str) -> None:
    write_rows(tmp_path, licence)
    assert data.code_rows(tmp_path, "train") == []


def test_rows_under_permissive_licences_are_kept(data: Any, tmp_path: Path) -> None:
    write_rows(tmp_path, "MIT")
    assert len(data.code_rows(tmp_path, "train")) == 15


@pytest.mark.long
def test_nothing_is_written_where_no_row_may_be_used(tmp_path: Path) -> None:
    write_rows(tmp_path, "CC-BY-NC-4.0")
    run = train(tmp_path, tmp_path / "weights.weights")
    assert run.returncode == 2
    assert "licence" in run.stderr
    assert not (tmp_path / "weights.weights").exists()


@pytest.mark.long
def test_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path, "MIT")
    first, second = tmp_path / "first.weights", tmp_path / "second.weights"
    assert train(tmp_path, first).returncode == 0
    assert train(tmp_path, second).returncode == 0
    assert first.read_bytes() == second.read_bytes()


def test_confusion_set_is_not_among_the_training_prompts() -> None:
    lines = (ROOT / "scripts" / "classifier" / "prompts.txt").read_text("utf-8").splitlines()
    trained = {line.split("|", 2)[2] for line in lines if not line.startswith("#")}
    held = (ROOT / "tests" / "data" / "confusion.jsonl").read_text("utf-8").splitlines()
    assert not {json.loads(line)["prompt"] for line in held} & trained
