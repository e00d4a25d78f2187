"""What mlx-lm (0.32) is asked for apart from tokens: loading, KV caches, hidden states. Runs on the MLX thread.

Only this file, ``rows`` and ``solo`` know mlx-lm's API.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import cache as kv
from mlx_lm.utils import load_model, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.engine.weights import Folder

KV = list[Any]
_EVAL_BYTES = 64 << 20


@dataclass(slots=True)
class Loaded:
    """A model in memory. Whoever keeps a reference keeps the weights."""

    name: str
    folder: Folder
    model: Any
    tokenizer: Any
    vocabulary: int
    mergeable: bool
    cuttable: bool

    @property
    def eos(self) -> frozenset[int]:
        """The token ids that end an answer."""
        return frozenset(self.tokenizer.eos_token_ids)


def load_steps(name: str, folder: Folder) -> Generator[float, None, Loaded]:
    """Load a model piece by piece, yielding the loaded fraction, so that other work can go on and it can be stopped.

    Raises:
        Exception: whatever mlx-lm raises for broken or unknown models; see ``faults.explain``.
    """
    model, config = load_model(folder.path, lazy=True)
    if folder.wide:
        model.set_dtype(mx.float32)
    yield 0.0
    tokenizer = load_tokenizer(folder.path, eos_token_ids=config.get("eos_token_id"))  # type: ignore[no-untyped-call]
    yield 0.05
    parts: list[Any] = [pair[1] for pair in tree_flatten(model.parameters())]
    total, done, pending = sum(array.nbytes for array in parts) or 1, 0, 0
    group: list[mx.array] = []
    for array in parts:
        group.append(array)
        pending += array.nbytes
        if pending >= _EVAL_BYTES:
            mx.eval(group)
            done, pending, group = done + pending, 0, []
            yield 0.05 + 0.95 * done / total
    mx.eval(group)
    probe = kv.make_prompt_cache(model)
    return Loaded(
        name=name,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        vocabulary=_vocabulary(model, config),
        mergeable=all(hasattr(layer, "merge") for layer in probe),
        cuttable=all(type(layer) is kv.KVCache for layer in probe),
    )


def load_now(name: str, folder: Folder) -> Loaded:
    """Load a model in one go (the draft model, tests)."""
    steps = load_steps(name, folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            loaded: Loaded = end.value
            return loaded


def _vocabulary(model: Any, config: dict[str, Any]) -> int:
    """Return the width of the logits, which includes padding that the tokenizer does not know of."""
    said = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if said:
        return int(said)
    return int(model(mx.array([[0]])).shape[-1])


def kv_view(kept: KV, tokens: int) -> KV:
    """Return the first ``tokens`` tokens of a plain KV cache, leaving the original as it is."""
    cut = []
    for layer in kept:
        view: Any = kv.KVCache()  # type: ignore[no-untyped-call]
        # New array objects: an update in place must not reach the original.
        view.keys, view.values = layer.keys[..., :tokens, :], layer.values[..., :tokens, :]
        view.offset = tokens
        cut.append(view)
    return cut


def kv_copy(kept: KV) -> KV:
    """Return a KV cache of any kind that can be changed without changing the original."""
    return copy.deepcopy(kept)


def kv_detach(kept: KV) -> int:
    """Start computing a cache cut out of a batch, so that it does not keep the batch alive; return its bytes."""
    mx.async_eval([layer.state for layer in kept])  # type: ignore[no-untyped-call]
    return int(sum(layer.nbytes for layer in kept))


def kv_save(path: Path, kept: KV) -> None:
    """Write a KV cache to a safetensors file."""
    kv.save_prompt_cache(str(path), kept)


def kv_load(path: Path) -> KV:
    """Read a KV cache from a safetensors file."""
    found: KV = kv.load_prompt_cache(str(path))  # type: ignore[no-untyped-call]
    return found


def embed(loaded: Loaded, rows: list[list[int]], pooling: str) -> list[list[float]]:
    """Return one unit vector a row: the hidden states pooled over the row's tokens.

    Right padding is exact for causal models, as no token sees what follows it.
    """
    longest = max(map(len, rows))
    padded = mx.array([row + [0] * (longest - len(row)) for row in rows])
    hidden = loaded.model.model(padded).astype(mx.float32)
    lengths = mx.array([len(row) for row in rows])
    if pooling == "mean":
        mask = (mx.arange(longest)[None, :] < lengths[:, None]).astype(mx.float32)[..., None]
        pooled = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    else:
        at = lengths - 1 if pooling == "last" else mx.zeros_like(lengths)
        pooled = hidden[mx.arange(len(rows)), at]
    units = pooled / mx.maximum(mx.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    mx.eval(units)
    vectors: list[list[float]] = units.tolist()
    return vectors
