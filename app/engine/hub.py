"""From a model's name to a folder: a local path, what is already downloaded, and only then the network."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from app.engine.errors import CancelledLoadError, ModelError


class Progress:
    """Bytes of a download; written by its threads, read by anyone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done = self.total = 0
        self.cancelled = False

    def add(self, count: int) -> None:
        """Count bytes that arrived.

        Raises:
            CancelledLoadError: the download is not wanted any more.
        """
        if self.cancelled:
            raise CancelledLoadError("the download was cancelled")
        with self._lock:
            self.done += count


def is_path(name: str) -> bool:
    """Return whether a model's name is a path and not a hub id."""
    return name.startswith(("/", "./", "../", "~"))


def fetch(name: str, progress: Progress, *, offline: bool) -> Path:
    """Return the folder of a model, downloading it where that is needed and allowed. Blocks.

    What is on the disk is used without asking the network whether there is something newer.

    Raises:
        Exception: whatever the file system or huggingface_hub raise; see ``faults.explain``.
    """
    if is_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ModelError(f"{name} is no folder on this machine: check the path", status=404, code="model_not_found")
        return folder
    found = _downloaded(name, offline=offline)
    return found if found is not None else _download(name, progress)


def _downloaded(name: str, *, offline: bool) -> Path | None:
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        return Path(_snapshot(name, local_files_only=True))
    except (LocalEntryNotFoundError, IncompleteSnapshotError):
        if offline:
            return Path(_snapshot(name))  # raises what tells offline from unreachable
        return None


def _download(name: str, progress: Progress) -> Path:
    files = _snapshot(name, dry_run=True)
    progress.total = sum(file.file_size or 0 for file in files)
    progress.done = sum(file.file_size or 0 for file in files if file.is_cached)
    return Path(_snapshot(name, tqdm_class=_bar_class(progress)))


def _snapshot(name: str, **options: Any) -> Any:
    from huggingface_hub import snapshot_download
    from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

    return snapshot_download(name, allow_patterns=DEFAULT_ALLOW_PATTERNS, **options)


def _bar_class(progress: Progress) -> type[Any]:
    """Return a progress bar that draws nothing and counts bytes."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts = kwargs.get("unit") == "B"
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            progress.add(int(n or 0) if self._counts else 0)
            return None

    return Bar
