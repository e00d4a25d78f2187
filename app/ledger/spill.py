"""Where rows wait while the database is away: a file of JSON lines, bounded, and safe on the disk when it says so."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from app.ledger.rows import line_of, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.ledger.rows import Row

_CHUNK = 1 << 20


class SpillFullError(OSError):
    """The file has reached its bound."""


class Spill:
    """One file, owned by the process that holds its lock. Its methods block: call them in a thread.

    Attributes:
        size: bytes in the file; read_to: how many of them the database has.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._file: int | None = None
        self.size = 0
        self.read_to = 0

    @property
    def waiting(self) -> int:
        """Bytes that the database does not have yet."""
        return self.size - self.read_to

    def open(self) -> bool:
        """Take the file, made where it is not there yet; return whether it is ours now.

        Raises:
            OSError: it cannot be opened.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file, self.size = file, os.fstat(file).st_size
        return True

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; they are on the disk when this returns, and none of them is when it raises.

        Raises:
            SpillFullError: the bound would be passed.
            OSError: the disk takes no more.
        """
        data = b"".join([line_of(row) + b"\n" for row in rows])
        if self.size + len(data) > self._most:
            raise SpillFullError(f"{self._path.name} has reached {self._most / 1e6:.0f} MB")
        if self._file is None and not self.open():
            raise OSError(f"{self._path} is another process's")
        file = self._held()
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, self.size)
            raise
        self.size += len(data)

    def next(self) -> tuple[list[Row], int]:
        """Return rows that the database does not have yet, about a megabyte, and where the next ones begin."""
        data = os.pread(self._held(), min(_CHUNK, self.waiting), self.read_to)
        end = data.rfind(b"\n") + 1
        if not end:  # a row longer than a chunk, or the torn end of a process that was killed
            data = os.pread(self._held(), self.waiting, self.read_to)
            end = data.find(b"\n") + 1 or len(data)
        found = [row for line in data[:end].split(b"\n") if (row := row_of(line)) is not None]
        return found, self.read_to + end

    def done(self, read_to: int) -> None:
        """Say how far the database has the rows; a file that it has whole is emptied."""
        self.read_to = read_to
        if not self.waiting:
            os.ftruncate(self._held(), 0)
            self.size = self.read_to = 0

    def close(self) -> None:
        """Let go of the file, and take it away where nothing waits in it."""
        if self._file is None:
            return
        if not self.waiting:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None

    def _held(self) -> int:
        if self._file is None:
            raise OSError(f"{self._path} is not open")
        return self._file


def orphans(folder: Path, mine: Path, most_bytes: int) -> list[Spill]:
    """Take over the files of processes that have ended, those with something in them."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        each = Spill(path, most_bytes)
        if path == mine or not each.open():
            continue
        if each.size:
            found.append(each)
        else:
            each.close()
    return found
