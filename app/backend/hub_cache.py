"""Whether a local model is on this host's disk: a look at folders, so that no engine is started for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATHS = ("/", "./", "../", "~")


def on_disk(model: str, environment: Mapping[str, str]) -> bool:
    """Return whether a model's weights are there.

    Args:
        model: a hub id or a path.
        environment: the engine's; it names Hugging Face's cache as huggingface_hub reads it.
    """
    if model.startswith(_PATHS):
        return any(Path(model).expanduser().glob("*.safetensors"))
    folder = _cache(environment) / f"models--{model.replace('/', '--')}" / "snapshots"
    return any(folder.glob("*/*.safetensors"))


def _cache(environment: Mapping[str, str]) -> Path:
    told = os.environ | dict(environment)
    home = Path(told.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(told.get("HF_HUB_CACHE") or Path(told.get("HF_HOME") or home) / "hub").expanduser()
