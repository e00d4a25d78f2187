"""Where the contents of files lie: ``DATA_DIR/files``, one file each by its id, and what batches write meanwhile."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedWriter


_FORGET_S = 3600.0


def new_id(kind: str) -> str:
    """Return a fresh id, e.g. ``file-3f…``."""
    return f"{kind}{secrets.token_hex(12)}"


class Folder:
    """The files of one host, or of several that share DATA_DIR."""

    def __init__(self, data_dir: str) -> None:
        self.root = Path(data_dir) / "files"
        self._parts = self.root / "parts"
        self._owners = self.root / "owners"

    def make(self) -> None:
        """Make the folders."""
        for each in (self.root, self._parts, self._owners):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, file_id: str) -> Path:
        """Return where a file's contents lie; the id must be one of ours."""
        return self.root / file_id

    def incoming(self) -> Path:
        """Return a name for a file that is being written."""
        self.make()
        return self.root / f"{new_id('incoming-')}.tmp"

    def part(self, batch_id: str, owner: str) -> Path:
        """Return where one run writes its results: no two runs ever write to the same file."""
        return self._parts / f"{batch_id}.{owner}.part"

    def parts(self, batch_id: str) -> list[Path]:
        """Return what all runs of a batch have written, the earliest first."""
        found = self._parts.glob(f"{batch_id}.*.part")
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def drop_parts(self, batch_id: str) -> None:
        """Delete what the runs of a batch have written."""
        for path in self.parts(batch_id):
            path.unlink(missing_ok=True)

    def drop(self, file_id: str) -> None:
        """Delete a file's contents; harmless when repeated."""
        self.path(file_id).unlink(missing_ok=True)

    def old(self, before: float) -> Iterator[Path]:
        """Yield everything here that nobody has written to since a moment, in seconds since 1970."""
        for folder in (self.root, self._parts):
            for path in folder.iterdir():
                with suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < before:
                        yield path

    # -- who is alive --------------------------------------------------------------------------------------------------

    def live(self, process: str) -> BufferedWriter:
        """Say that a process is alive: the kernel lets go of the lock when it ends, however it ends."""
        self.make()
        path = self._owners / process
        lock = path.open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock

    def is_dead(self, process: str) -> bool:
        """Whether a process that shared this folder is known to be gone; False where nothing is known of it."""
        path = self._owners / process
        try:
            with path.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def forget_dead(self) -> None:
        """Delete the signs of processes that are long gone; leases of theirs have ended by themselves."""
        before = time.time() - _FORGET_S
        for sign in self._owners.iterdir():
            with suppress(FileNotFoundError):
                if sign.stat().st_mtime < before and self.is_dead(sign.name):
                    self.forget(sign.name)

    def forget(self, process: str) -> None:
        """Delete the sign of a process that is gone."""
        with suppress(OSError):
            os.unlink(self._owners / process)  # noqa: PTH108 - one call, one error to ignore
