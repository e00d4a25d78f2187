"""Results on disk while a batch runs: each run appends to a part of its own, and the output is put together at the end.

A row is ``number TAB good TAB json NEWLINE``, written by one system call. A process that is killed leaves whole rows,
and at most one that lacks its end, which does not count. So a line counts as done exactly if its row is whole, and of
two rows of one line the first one counts.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row's JSON is."""

    path: Path
    begin: int
    end: int
    good: bool


class Part:
    """What one run writes, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._broken = False

    def write(self, number: int, row: bytes, *, good: bool) -> None:
        """Append a row.

        Raises:
            OSError: it cannot be written; the part then takes no more, since it may end in half a row.
        """
        with self._lock:
            self._write(b"%d\t%d\t%b\n" % (number, good, row))

    def _write(self, data: bytes) -> None:
        if self._broken:
            raise OSError(f"{self.path.name} could not be written to before")
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            whole = os.write(self._fd, data) == len(data)
        except OSError:
            self._broken = True
            raise
        if not whole:
            self._broken = True
            raise OSError("the disk took half a row")

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def done(paths: Iterable[Path]) -> dict[int, Place]:
    """Return where the row of each line is that has one."""
    found: dict[int, Place] = {}
    for path in paths:
        at = 0
        with path.open("rb") as part:
            for raw in part:
                begin, at = at, at + len(raw)
                place = _place(path, raw, begin)
                if place is not None:
                    found.setdefault(place[0], place[1])
    return found


def _place(path: Path, raw: bytes, begin: int) -> tuple[int, Place] | None:
    number, _, rest = raw.partition(b"\t")
    good, _, row = rest.partition(b"\t")
    if not raw.endswith(b"\n") or not number.isdigit() or good not in {b"0", b"1"}:
        return None
    end = begin + len(raw)
    return int(number), Place(path, end - len(row), end, good == b"1")


def assemble(places: dict[int, Place], good: Path, bad: Path) -> tuple[int, int]:
    """Write the rows in the order of their lines, answers to one file and errors to the other; return both sizes.

    A file that would be empty is not made.
    """
    sizes = [0, 0]
    for which, path in ((True, good), (False, bad)):
        chosen = [places[number] for number in sorted(places) if places[number].good is which]
        if chosen:
            sizes[not which] = _copy(chosen, path)
    return sizes[0], sizes[1]


def _copy(places: Iterable[Place], path: Path) -> int:
    opened: dict[Path, int] = {}
    size = 0
    try:
        with path.open("wb") as out:
            for place in places:
                if place.path not in opened:
                    opened[place.path] = os.open(place.path, os.O_RDONLY)
                size += out.write(os.pread(opened[place.path], place.end - place.begin, place.begin))
            out.flush()
            os.fsync(out.fileno())
    finally:
        for fd in opened.values():
            os.close(fd)
    return size
