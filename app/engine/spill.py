"""Kept prefixes on disk: KV caches that fell out of memory, private to this process's user and life."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from app.engine import adapter


class DiskStore:
    """Keeps KV caches as safetensors files in a folder of its own, which goes when the store does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def save(self, number: int, value: Any) -> int:
        """Write a KV cache and return the file's bytes."""
        adapter.kv_save(self._path(number), value)
        return self._path(number).stat().st_size

    def load(self, number: int) -> Any:
        """Read a KV cache."""
        return adapter.kv_load(self._path(number))

    def drop(self, number: int) -> None:
        """Delete a KV cache."""
        with contextlib.suppress(OSError):
            self._path(number).unlink()


def make_store(folder: str, name: str) -> DiskStore | None:
    """Return a store under ``folder``, readable by this user alone since it holds what people wrote; or None."""
    if not folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return DiskStore(Path(tempfile.mkdtemp(prefix=f"prefix-{os.getpid()}-{name}-", dir=folder)))
