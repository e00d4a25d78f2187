"""Every prompt file there is, followed like the settings; a broken file harms only itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.prompts import DIRECTORY
from app.prompts.read import read_pipeline, read_task
from app.prompts.spec import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.prompts.spec import Pipeline, Task

TASK, PIPELINE = "task/", "pipeline/"
_task = lru_cache(maxsize=512)(read_task)
"""A changed file has another text; the others need not be read again."""
_SUFFIX = {TASK: ".md", PIPELINE: ".yaml"}
_MOST_BYTES = 256 * 1024
_NOTES = frozenset({"readme", "license", "changelog"})
"""Files in a folder of prompts that are none."""
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The prompts in force at one moment; a call takes one shelf and keeps it.

    Attributes:
        broken: by ``task/<name>`` or ``pipeline/<name>``: what is wrong with the file.
    """

    tasks: Mapping[str, Task] = field(default_factory=dict)
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)

    def trouble(self) -> str | None:
        """Return all that is broken in one line, or None."""
        return "; ".join(f"{name}: {why}" for name, why in sorted(self.broken.items())) or None


class Library:
    """The shelf in force, from Sluice's own prompts and those of the operator, which come first.

    Sluice's own are read at their first use: what reads them is a twentieth of a gateway's memory. Those of the
    operator are read beside the first calls, so that what is wrong with them is told.
    """

    def __init__(self, directory: str = "") -> None:
        self._shelf: Shelf | None = None
        self._reading = Lock()
        self._directory = directory
        self._applied = self._pending = self._stamp()

    @property
    def current(self) -> Shelf:
        """The shelf, swapped whole; where it was not read yet that takes a while: see :meth:`shelf`."""
        if self._shelf is not None:
            return self._shelf
        with self._reading:
            return self._shelf if self._shelf is not None else self._read()

    async def shelf(self) -> Shelf:
        """Return the shelf in force; whoever asks first waits until it is read, and nobody else does."""
        return self._shelf if self._shelf is not None else await asyncio.to_thread(lambda: self.current)

    @property
    def owed(self) -> bool:
        """Whether there are prompts of the operator that have not been read yet."""
        return self._shelf is None and bool(self._directory)

    def trouble(self) -> str | None:
        """Return all that is known to be broken in one line, or None."""
        return None if self._shelf is None else self._shelf.trouble()

    def reload(self) -> None:
        """Read everything anew, unless nothing was wanted yet."""
        if self._shelf is not None or self.owed:
            self.load()

    def load(self) -> Shelf:
        """Read everything anew."""
        with self._reading:
            return self._read()

    def _read(self) -> Shelf:
        self._shelf = shelf = read_shelf(self._directory)
        return shelf

    def poll(self, directory: str) -> Shelf | None:
        """Read everything anew once a file has changed and then rested for one poll; None where nothing did."""
        moved, self._directory = directory != self._directory, directory
        stamp = self._stamp()
        rested, self._pending = stamp == self._pending, stamp
        if not (moved or (rested and stamp != self._applied)):
            return None
        self._applied = stamp
        wanted = self._reading.locked() or self._shelf is not None or self.owed
        return self.load() if wanted else None

    def _stamp(self) -> Stamp:
        found = []
        for path in _files(self._directory):
            try:
                told = path.stat()
            except OSError:
                continue
            found.append((str(path), told.st_mtime_ns, told.st_size, told.st_ino))
        return tuple(sorted(found))


def read_shelf(directory: str) -> Shelf:
    """Read Sluice's own prompts, and those of a directory over them."""
    texts: dict[str, str] = {}
    broken: dict[str, str] = {}
    if directory and not Path(directory).is_dir():
        broken["PROMPTS_DIR"] = f"{directory} is no directory"
    for path in _files(directory):
        name = f"{TASK if path.suffix == _SUFFIX[TASK] else PIPELINE}{path.stem}"
        texts.pop(name, None)
        broken.pop(name, None)
        try:
            texts[name] = _text(path)
        except (OSError, ValueError) as error:
            broken[name] = f"{path} cannot be read: {error}"
    tasks: dict[str, Task] = {}
    pipelines: dict[str, Pipeline] = {}
    for name, text in sorted(texts.items(), key=lambda each: not each[0].startswith(TASK)):
        kind, _, stem = name.partition("/")
        try:
            if f"{kind}/" == TASK:
                tasks[stem] = _task(stem, text)
            else:
                pipelines[stem] = read_pipeline(stem, text, tasks)
        except PromptError as error:
            broken[name] = str(error)
    return Shelf(MappingProxyType(tasks), MappingProxyType(pipelines), MappingProxyType(broken))


def _files(directory: str) -> Iterator[Path]:
    """Yield every prompt file, those of the operator last."""
    for folder in (DIRECTORY, *([Path(directory)] if directory else [])):
        for below, suffix in ((folder, _SUFFIX[TASK]), (folder / "pipelines", _SUFFIX[PIPELINE])):
            found = sorted(below.glob(f"*{suffix}")) if below.is_dir() else ()
            yield from (path for path in found if path.stem.lower() not in _NOTES)


def _text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ValueError: it is too large, or not UTF-8.
    """
    raw = path.read_bytes()
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES // 1024} kB")
    return raw.decode()
