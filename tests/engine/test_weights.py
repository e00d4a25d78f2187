from __future__ import annotations

import json
from typing import TYPE_CHECKING

from app.engine.weights import read_folder

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
