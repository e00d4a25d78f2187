"""Kept prefixes: which KV cache of an earlier prompt shares the longest start with a new one.

Own index instead of mlx-lm's ``LRUPromptCache``: that one's look-up is quadratic (0.95 s for ten chats of 16,000
tokens, on the generating thread) and it evicts first in, first out. A numpy comparison over 50 entries of 32,000 tokens
takes about a millisecond.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("sluice.engine")
_MIN_TOKENS = 16  # copying a shorter prefix costs more than reading it
_MOST_ENTRIES = 512  # those that begin alike are compared one by one, on the generating thread
Ids = np.ndarray[Any, np.dtype[np.int32]]


class Store(Protocol):
    """Where prefixes go that fall out of memory."""

    def save(self, number: int, value: Any) -> int:
        """Keep a value outside memory and return its bytes there."""

    def load(self, number: int) -> Any:
        """Return a kept value; raises OSError or RuntimeError where it cannot be read."""

    def drop(self, number: int) -> None:
        """Forget a kept value."""


class Hit(NamedTuple):
    """A kept prefix that fits: ``value`` covers ``whole`` tokens, of which the first ``tokens`` are shared."""

    value: Any
    tokens: int
    whole: int


@dataclass(slots=True)
class _Entry:
    ids: Ids
    value: Any
    size: int
    spilled: int = 0


class PrefixIndex:
    """An index of token sequences with a byte budget, least recently used out first.

    Args:
        budget: bytes of values in memory.
        cuttable: whether a value serves any shorter prefix of itself; else it only serves as a whole.
        store: where evicted values go, or None to drop them.
        disk_budget: bytes in the store.
    """

    def __init__(self, budget: int, *, cuttable: bool, store: Store | None = None, disk_budget: int = 0) -> None:
        self._budget, self._cuttable = budget, cuttable
        self._store, self._disk_budget = store, disk_budget
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._alike: dict[bytes, set[int]] = {}  # numbers of entries by their first tokens
        self._numbers = itertools.count()
        self.bytes = self.disk_bytes = 0
        self.hits = self.misses = self.hit_tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: Sequence[int]) -> Hit | None:
        """Return the kept value that shares the most tokens with the start of ``tokens``, leaving one to read."""
        wanted = np.asarray(tokens, dtype=np.int32)
        best, shared = self._best(wanted)
        value = None if best is None else self._value(best)
        if best is None or value is None:
            self.misses += 1
            return None
        self._entries.move_to_end(best)
        self.hits, self.hit_tokens = self.hits + 1, self.hit_tokens + shared
        return Hit(value, shared, len(self._entries[best].ids))

    def _best(self, wanted: Ids) -> tuple[int | None, int]:
        best, most = None, _MIN_TOKENS - 1
        for number in self._alike.get(_start(wanted), ()):
            entry = self._entries[number]
            shared = self._usable(common(entry.ids, wanted), entry, wanted)
            if shared > most:
                best, most = number, shared
        return best, most

    def _usable(self, common: int, entry: _Entry, wanted: Ids) -> int:
        if self._cuttable:
            return min(common, len(wanted) - 1)
        return common if common == len(entry.ids) < len(wanted) else 0

    def _value(self, number: int) -> Any:
        entry = self._entries[number]
        if entry.value is not None or self._store is None:
            return entry.value
        try:
            value = self._store.load(number)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("a kept prefix could not be read back: %s", error)
            self._forget(number)
            return None
        entry.value = value
        self.bytes += entry.size
        self._shrink(keep=number)
        return value

    def add(self, tokens: Sequence[int], value: Any, size: int) -> None:
        """Keep a value for a token sequence; entries that it makes superfluous go."""
        if size > self._budget or len(tokens) < _MIN_TOKENS:
            return
        ids = np.asarray(tokens, dtype=np.int32)
        alike = self._alike.setdefault(_start(ids), set())
        for number in [n for n in alike if self._superseded(self._entries[n], ids)]:
            self._forget(number)
        number = next(self._numbers)
        self._entries[number] = _Entry(ids, value, size)
        self._alike.setdefault(_start(ids), set()).add(number)
        self.bytes += size
        if len(self._entries) > _MOST_ENTRIES:
            self._forget(next(iter(self._entries)))
        self._shrink(keep=number)

    def _superseded(self, entry: _Entry, ids: Ids) -> bool:
        if len(entry.ids) > len(ids) or not (self._cuttable or len(entry.ids) == len(ids)):
            return False
        return common(entry.ids, ids) == len(entry.ids)

    def _shrink(self, keep: int) -> None:
        for number, entry in list(self._entries.items()):
            if self.bytes <= self._budget:
                break
            if entry.value is not None and number != keep:
                self._spill(number, entry)
        for number, entry in list(self._entries.items()):
            if self.disk_bytes <= self._disk_budget:
                break
            if entry.value is None:
                self._forget(number)

    def _spill(self, number: int, entry: _Entry) -> None:
        if self._store is None:
            self._forget(number)
            return
        try:
            written = entry.spilled or self._store.save(number, entry.value)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("a prefix could not be kept on disk: %s", error)
            self._forget(number)
            return
        self.disk_bytes += written - entry.spilled
        self.bytes -= entry.size
        entry.spilled, entry.value = written, None

    def _forget(self, number: int) -> None:
        entry = self._entries.pop(number)
        alike = self._alike[_start(entry.ids)]
        alike.discard(number)
        if not alike:
            del self._alike[_start(entry.ids)]
        if entry.value is not None:
            self.bytes -= entry.size
        if entry.spilled and self._store is not None:
            self.disk_bytes -= entry.spilled
            self._store.drop(number)

    def clear(self) -> None:
        """Forget everything, on disk too."""
        for number in list(self._entries):
            self._forget(number)


def _start(ids: Ids) -> bytes:
    """Return what two sequences must have in common to be worth comparing."""
    return ids[:_MIN_TOKENS].tobytes()


def common(a: Ids, b: Ids) -> int:
    """Return the length of the longest common start."""
    length = min(len(a), len(b))
    if not length:
        return 0
    different = a[:length] != b[:length]
    first = int(different.argmax())
    return first if different[first] else length
