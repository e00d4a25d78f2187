from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from app.engine.weights import read_folder
from tests.engine import tiny
from tests.engine.process import running

if TYPE_CHECKING:
    from pathlib import Path


def test_bytes_are_predicted_exactly(folders: dict[str, Path]) -> None:
    import mlx.core as mx

    folder = read_folder(folders["llama"])
    weights = mx.load(str(folders["llama"] / "model.safetensors"))
    assert isinstance(weights, dict)
    assert folder.weight_bytes == sum(array.nbytes for array in weights.values())
    # 2 (keys and values) x 4 layers x 4 heads x 32 numbers x 4 bytes
    assert folder.kv_bytes_per_token == 4096


def test_the_shortest_context_counts_and_nonsense_does_not(qwen: Path, tmp_path: Path) -> None:
    assert read_folder(qwen).context == 32768
    for file in qwen.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((qwen / "tokenizer_config.json").read_text()) | {"model_max_length": 1e30}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_folder(tmp_path).context == 32768
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 100}))
    assert read_folder(tmp_path).context == 100


def test_embedding_models_are_told_by_their_files(folders: dict[str, Path]) -> None:
    assert read_folder(folders["embed"]).embedding
    assert read_folder(folders["embed"]).pooling == "last"
    assert not read_folder(folders["qwen"]).embedding


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 16-bit weights."""
    return tiny.make(tmp_path_factory.mktemp("half") / "model", tiny.HALF)


def test_16_bit_weights_are_widened_where_there_is_room_and_they_are_no_scales(
    half: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    wide = read_folder(folders["llama"], 1 << 30)
    assert not wide.wide  # they are wide already
    widened = read_folder(half, wide.weight_bytes)
    assert (widened.wide, widened.weight_bytes, widened.kv_bytes_per_token) == (True, wide.weight_bytes, 4096)
    as_they_are = read_folder(half, wide.weight_bytes - 1)
    assert (as_they_are.wide, as_they_are.weight_bytes, as_they_are.kv_bytes_per_token) == (
        False,
        wide.weight_bytes // 2,
        2048,
    )
    shutil.copytree(half, tmp_path / "q")
    config = json.loads((half / "config.json").read_text()) | {"quantization": {"bits": 4, "group_size": 64}}
    (tmp_path / "q" / "config.json").write_text(json.dumps(config))
    assert not read_folder(tmp_path / "q", 1 << 30).wide


@pytest.mark.skipif(sys.platform != "linux", reason="only OpenBLAS needs 32 bits")
def test_a_model_of_16_bits_answers_from_32_bits_and_takes_the_memory_that_it_says(half: Path) -> None:
    with running("--models", str(half)) as engine:
        assert engine.chat(half, max_tokens=5, temperature=0)["usage"]["completion_tokens"] > 0
        said = engine.model(half)["bytes"]
        assert said == read_folder(half, 1 << 30).weight_bytes
        assert said <= engine.get("/stats")["memory"]["active_bytes"] < said * 1.1
