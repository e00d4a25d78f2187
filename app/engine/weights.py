"""What a model folder says before anything is loaded: bytes, context, layers. Reads headers only, never weights."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_HEADER_LIMIT = 256 << 20
_SANE_CONTEXT = 10_000_000  # tokenizers without a limit say 1e30


@dataclass(frozen=True, slots=True)
class Folder:
    """A model folder as its files describe it.

    Attributes:
        weight_bytes: bytes of all weights, which is what they take in memory once loaded.
        wide: whether 16-bit weights are to be loaded as 32-bit ones; ``weight_bytes`` counts them so.
        kv_bytes_per_token: bytes of keys and values per token of context, for 16- or 32-bit caches; 0 if unknown.
        context: the longest prompt and answer together, in tokens.
        embedding: whether the folder is marked as an embedding model.
        pooling: how an embedding is made of the tokens': ``last``, ``mean`` or ``cls``.
        defaults: the sampling values that the model's makers recommend.
    """

    path: Path
    weight_bytes: int
    wide: bool
    kv_bytes_per_token: int
    context: int
    embedding: bool
    pooling: str
    defaults: dict[str, Any]


def read_folder(path: Path, widen_up_to: int = 0) -> Folder:
    """Read a model folder's headers.

    Args:
        path: the folder.
        widen_up_to: 16-bit weights are widened where all weights then take at most so many bytes.

    Raises:
        FileNotFoundError: ``config.json``, the tokenizer or the weights are missing.
        ValueError: a header is broken: the download broke off, or a file is a Git LFS pointer.
    """
    config = _json(path / "config.json", needed=True)
    if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tiktoken.model")):
        raise FileNotFoundError(f"no tokenizer.json in {path}")
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no model*.safetensors in {path}")
    text = config.get("text_config") or config
    sizes = [_weight_bytes(file) for file in files]
    size, narrow = sum(all_ for all_, _ in sizes), sum(half for _, half in sizes)
    quantised = "quantization" in config or "quantization_config" in config  # its 16-bit numbers are scales
    wide = 0 < narrow <= widen_up_to - size and not quantised
    return Folder(
        path=path,
        weight_bytes=size + narrow if wide else size,
        wide=wide,
        kv_bytes_per_token=_kv_bytes(text, config, wide=wide),
        context=_context(text, path),
        embedding=(path / "modules.json").exists() or (path / "1_Pooling").is_dir(),
        pooling=_pooling(path),
        defaults=_json(path / "generation_config.json"),
    )


def _json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    if not path.exists() and not needed:
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")  # noqa: TRY004 - a broken file, not a wrong argument
    return value


def _weight_bytes(file: Path) -> tuple[int, int]:
    """Return the bytes of a safetensors file's tensors, and of those that have 16 bits a number.

    The file has 8 bytes of header length, the header, then the tensors.
    """
    size = file.stat().st_size
    with file.open("rb") as source:
        start = source.read(8)
        if len(start) < 8 or start == b"version ":  # noqa: PLR2004 - the header's length takes 8 bytes
            raise ValueError(f"{file} is empty, cut off or only a Git LFS pointer")
        (length,) = struct.unpack("<Q", start)
        if not 0 < length <= min(size - 8, _HEADER_LIMIT):
            raise ValueError(f"{file} is cut off or no safetensors file")
        header = json.loads(source.read(length))
    header.pop("__metadata__", None)
    whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if whole != size:
        raise ValueError(f"{file} is cut off: {size} bytes of {whole}")
    narrow = [entry["data_offsets"] for entry in header.values() if entry["dtype"] in {"BF16", "F16"}]
    return int(size - 8 - length), sum(last - first for first, last in narrow)


def _kv_bytes(text: dict[str, Any], config: dict[str, Any], *, wide: bool) -> int:
    """Return 2 (keys, values) x layers x KV heads x head size x bytes per number."""
    heads = text.get("num_attention_heads") or 0
    layers = text.get("num_hidden_layers") or 0
    if not heads or not layers:
        return 0
    size = text.get("head_dim") or (text.get("hidden_size") or 0) // heads
    kind = str(text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or "")
    return int(2 * layers * (text.get("num_key_value_heads") or heads) * size * (4 if wide or kind == "float32" else 2))


def _context(text: dict[str, Any], path: Path) -> int:
    said = text.get("max_position_embeddings") or text.get("max_sequence_length") or text.get("n_positions")
    limit = _json(path / "tokenizer_config.json").get("model_max_length")
    sane = [int(n) for n in (said, limit) if isinstance(n, (int, float)) and 0 < n < _SANE_CONTEXT]
    return min(sane, default=4096)


def _pooling(path: Path) -> str:
    """Read sentence-transformers' pooling file; decoders without one are pooled at the last token."""
    said = _json(path / "1_Pooling" / "config.json")
    if said.get("pooling_mode_mean_tokens"):
        return "mean"
    return "cls" if said.get("pooling_mode_cls_token") else "last"
