"""The weights of the classifier: a file, and tables whose rows are one Python integer each.

A row has one weight a head, an 8-bit step from -127 to 127, each in a lane of 32 bits: a row is the sum of
``weight << 32 * head``, so that the sum of many rows, or of multiples of them, is one sum of integers, and each head's
is read off in the end. That holds as long as every head's sum is below 2**31, 16.9 million weights of 127.

The file: a line of JSON, then bytes: of each table the rows, a byte a head; of each entry of the lexicon the class;
then numbers of eight bytes, low byte first: the entries' hashes, and the hashes of the first two words of the phrases
among them.
"""

from __future__ import annotations

import json
import struct
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_FORMAT = "sluice classifier 1"
HEADS = 10
_LANE = 4
ZERO = 128
"""What a file adds to a weight, for it to be a byte."""


class Table(NamedTuple):
    """Weights: row after row a byte a head, :data:`ZERO` added to each; and of each head the size of a step."""

    raw: bytes
    steps: Sequence[float]

    def rows(self) -> list[int]:
        """Return all rows, packed."""
        return [_packed(self.raw[at : at + HEADS]) for at in range(0, len(self.raw), HEADS)]


class Rows:
    """The rows of a large table, packed when they are first needed, which most are not for long.

    Attributes:
        made: by column, those that are packed; None for the rest.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.made: list[Any] = [None] * (len(raw) // HEADS)
        self.make([0])

    def make(self, columns: Iterable[int]) -> None:
        """Have these rows packed."""
        made, raw = self.made, self._raw
        for column in columns:
            if made[column] is None:
                made[column] = _packed(raw[column * HEADS : (column + 1) * HEADS])

    def total(self, columns: list[int]) -> int:
        """Return the sum of the rows in these columns."""
        try:
            return sum(map(self.made.__getitem__, columns))
        except TypeError:  # None cannot be added: it is seldom, so that looking for it first would cost more
            self.make(columns)
            return sum(map(self.made.__getitem__, columns))


def _packed(raw: bytes) -> int:
    lanes = bytearray(_LANES.size)
    lanes[::_LANE] = raw
    return int.from_bytes(lanes, "little") - _ZEROS


class Weights(NamedTuple):
    """What a file holds.

    Attributes:
        tables: in a fixed order.
        bias: of each head; edges: where one complexity ends and the next begins.
        entries: of the lexicon, hash and class.
        phrases: the hashes of the first two words of each of its phrases.
    """

    tables: Sequence[Table]
    bias: Sequence[float]
    edges: Sequence[float]
    entries: dict[int, int]
    phrases: Sequence[tuple[int, int]]


def unpack(total: int) -> tuple[int, ...]:
    """Return of each head the sum of the weights that were added up."""
    return _LANES.unpack(((total + _MIDDLE) ^ _MIDDLE).to_bytes(_LANES.size, "little"))


_LANES = struct.Struct(f"<{HEADS}i")
_MIDDLE, _ZEROS = (sum(each << 32 * head for head in range(HEADS)) for each in (1 << 31, ZERO))
"""In every lane the highest bit: added, then inverted, it leaves each sum as a two's complement of its own."""


def read(path: Path) -> Weights:
    """Read a file.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not of this format.
    """
    line, _, rest = path.read_bytes().partition(b"\n")
    try:
        told = json.loads(line)
        return _read(told, rest)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{path} is not of this version: train it again with scripts/train-classifier") from error


def _read(told: dict[str, Any], rest: bytes) -> Weights:
    sizes = [*(HEADS * rows for rows in told["rows"]), told["entries"], 8 * told["entries"], 16 * told["phrases"]]
    ends = list(accumulate(sizes, initial=0))
    if (told["format"], len(told["bias"]), ends[-1]) != (_FORMAT, HEADS, len(rest)):
        raise ValueError("of another format or size")
    *weights, groups, keys, phrases = (rest[start:end] for start, end in pairwise(ends))
    tables = list(map(Table, weights, told["steps"]))
    entries = {key: group for (key,), group in zip(struct.iter_unpack("<Q", keys), groups, strict=True)}
    return Weights(tables, told["bias"], told["edges"], entries, list(struct.iter_unpack("<QQ", phrases)))


def write(path: Path, weights: Weights) -> None:
    """Write a file; the same weights give the same bytes."""
    told = {
        "format": _FORMAT,
        "rows": [len(table.raw) // HEADS for table in weights.tables],
        "steps": [list(table.steps) for table in weights.tables],
        "bias": list(weights.bias),
        "edges": list(weights.edges),
        "entries": len(weights.entries),
        "phrases": len(weights.phrases),
    }
    parts = [json.dumps(told).encode(), b"\n", *(table.raw for table in weights.tables)]
    parts += [bytes(weights.entries.values()), struct.pack(f"<{len(weights.entries)}Q", *weights.entries)]
    parts += [struct.pack("<QQ", *phrase) for phrase in weights.phrases]
    path.write_bytes(b"".join(parts))
