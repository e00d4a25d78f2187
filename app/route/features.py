"""What the classifier sees in a text: hashed words, pairs and stems, lexicon classes, and the shape of its characters.

One pass serves every head. The hash of a word is the sum of ``code[i] * BASE**i`` modulo 2**64 (as Rabin and Karp's),
and its high bits after one odd multiplication are its column (Fibonacci hashing). Words follow Zipf's law: nearly all
of a text's were met in the texts before it, and what is known of them is kept, so that most texts need but the sums for
pairs and triples. The work is bounded: of a longer text only the first ``HEAD`` and last ``TAIL`` characters count.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections import Counter
from functools import reduce
from itertools import accumulate, compress, count, pairwise, repeat
from operator import add, contains, mul
from typing import TYPE_CHECKING, Any, NamedTuple

from app.route.alphabet import ALONE, BLANK, CATEGORIES, SMALL, alphabet
from app.route.packed import HEADS, ZERO, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD, TAIL = 600, 300
"""Characters kept of a long text: its start says what is asked; the end repeats it under pasted material."""

ROW_BITS = 15
ROWS = 1 << ROW_BITS
"""Rows of the table of hashed words and n-grams."""

CLASSES = (
    "none", "make", "modify", "codeverb", "codenoun", "maybecode", "language", "maybelang", "library", "prose",
    "explain", "question", "how", "translate", "summarise", "extract", "math", "tongue", "greeting", "analysis",
    "science", "design", "easy", "followup", "format", "life", "fault", "constraint", "career", "imagine", "negation",
    "proof",
)  # fmt: skip
"""Word classes of the lexicon; the position is the class number."""

N_CLASS = 32
SHAPE = CATEGORIES * CATEGORIES
SIZES = 8 * N_CLASS
"""First of the skeleton's columns for length and for the share of words known; before it stand single classes."""
N_SIZES = 3
PAIRS = SIZES + 64
SKELETON = PAIRS + 2 * N_CLASS * N_CLASS

NEAR = 3
"""Two lexicon words at most this many words apart belong together."""
MAX_HITS = 64
STEM = 5

BASE, _MIX, _PAIR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F
_MASK = (1 << 64) - 1
_SLOT_BITS = 18
_SHIFT = 64 - ROW_BITS
_MOST_CHARS = HEAD + TAIL + 1
POWERS = [1]
for _ in range(_MOST_CHARS):
    POWERS.append(POWERS[-1] * BASE & _MASK)
ONES = list(accumulate(POWERS, initial=0))

_MOST_KEPT, _LONGEST_KEPT = 4096, 24
"""Words that are kept, about 500 bytes each, until there are so many; and their letters."""


Kept = tuple[int, int, int, int, frozenset[int], int]
"""What is kept of a word.

In order: its hash; its shares in those of pairs and of triples that it begins; its class, or else its stem's, 0 for
none; hashes of the words that come second where it begins a phrase of the lexicon; the weights of it and its stem.
"""


class Lexicon(NamedTuple):
    """Word classes by hash, and what is known of words.

    Attributes:
        group: the class of each entry that can be found.
        entries: what it was made of.
        nexts: of phrases among the entries, which words (hashes) come second, by the first.
        rows: packed weights by column.
        kept: folded words of the last texts, bounded, in no order.
    """

    group: dict[int, int]
    entries: dict[int, int]
    nexts: dict[int, frozenset[int]]
    rows: Rows
    kept: dict[str, Kept]

    def phrases(self) -> list[tuple[int, int]]:
        """Return the hashes of the first two words of phrases, in order."""
        return sorted((first, second) for first, each in self.nexts.items() for second in each)

    @property
    def identity(self) -> bytes:
        """What no other lexicon has."""
        keys, groups = ([0, *each] for each in (self.entries, self.entries.values()))
        return struct.pack(f"<{len(keys)}Q", *keys) + struct.pack(f"<{len(groups)}q", *groups)


class Features(NamedTuple):
    """What was seen in a text.

    Attributes:
        text: as it was read, with two line ends before and after it.
        words: of the text, folded.
        packed: the weights of all stems, words, pairs and triples, added up.
        skeleton: columns of the skeleton; those of the sizes come first.
        shape: how often two characters are neighbours, by :data:`NEIGHBOURS`.
        hits: the words that the lexicon knows, each with its class.
    """

    text: str
    words: list[str]
    packed: int
    skeleton: list[int]
    shape: dict[int, int]
    hits: list[tuple[int, int]]

    @property
    def grams(self) -> int:
        """How many stems, words, pairs and triples there are."""
        return 4 * len(self.words)

    def rows(self) -> list[int]:
        """Return the columns of stems, words, pairs and triples; a pair or triple past the end is in the first."""
        stems, keys = _hashes(self.words)
        pairs = [(key * _PAIR + after) & _MASK for key, after in pairwise(keys)]
        triples = [(key * _PAIR * _PAIR + after) & _MASK for key, after in zip(keys, pairs[1:], strict=False)]
        return [key >> _SHIFT for each in (stems, keys, pairs, triples) for key in [*each, 0, 0][: len(keys)]]

    def neighbours(self) -> list[tuple[int, float]]:
        """Return the columns of the pairs of characters that occur, and their values."""
        seen = [(_NUMBER[pair], shape_value(times)) for pair, times in self.shape.items()]
        return sorted(seen)

    def bounds(self) -> tuple[list[int], list[int]]:
        """Return where the words begin and end."""
        starts, ends, added = [], [], 0
        for found in _WORD.finditer(_read(self.text)[0]):
            start = found.start() - added
            single = found[0][0] == ALONE
            added += 2 * single
            starts.append(start)
            ends.append(start + 1 if single else found.end() - added)
        return starts, ends


_WORD = re.compile(f"{ALONE}.{ALONE}|[^ \n{ALONE}]+")
_BETWEEN = f"(?=[ \n][^ \n]|{ALONE}.{ALONE}[^ \n]|[^ \n{ALONE}]{ALONE})"
_OPENING, _OPENING_TOO = re.compile(f"\n{_BETWEEN}"), re.compile(f"[\n?]{_BETWEEN}")


def clip(text: str) -> str:
    """Return the part of the text that is looked at, at most ``HEAD + TAIL + 1`` characters."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


def row_value(count: int) -> float:
    """Return the value of so many hashed columns: it falls with the root of their number: long texts do not shout."""
    return 2.5 / math.sqrt(count or 1)


def class_value(count: int) -> float:
    """Return the value of the skeleton's columns but the sizes, whose is 1: less for many classes."""
    return 2.0 / math.sqrt(count)


def shape_value(times: int) -> float:
    """Return the value of a pair of neighbouring characters by how often it occurs: the root, up to 16 times."""
    return 0.25 * math.sqrt(min(times, 16))


def extract(text: str, lexicon: Lexicon) -> Features:
    """Return the features of a text, which should have passed :func:`clip`."""
    text = f"\n\n{text}\n\n"
    folded, signs = _read(text)
    words, opens = _cut(folded)
    if not words:
        return Features(text, words, 0, _sizes(len(text), 0, 0), _shape(signs), [])
    keys, begin_pairs, begin_triples, classes, nexts, weights = zip(*_known(words, lexicon), strict=True)
    after, groups = keys[1:], list(classes)
    pairs = list(map(add, begin_pairs, after))
    triples = list(map(add, begin_triples, pairs[1:]))
    past = 2 * len(words) - len(pairs) - len(triples)
    columns = [key >> _SHIFT & _LAST_ROW for key in pairs + triples]
    packed = sum(weights) + lexicon.rows.total(columns) + past * lexicon.rows.made[0]
    hits = _lookup(groups, compress(count(), map(contains, nexts, after)), pairs, triples, lexicon.group)
    skeleton = _skeleton(len(text), groups, hits, opens)
    return Features(text, words, packed, skeleton, _shape(signs), [(at, groups[at]) for at in hits])


def _read(text: str) -> tuple[str, bytes]:
    """Return the text folded, and the categories of its characters."""
    table = alphabet()
    if text.isascii():
        raw = text.encode("ascii")
        return raw.translate(table.folds).decode("ascii"), raw.translate(table.signs)
    return text.translate(table.fold), text.translate(table.sign).encode("latin-1")


def _cut(folded: str) -> tuple[list[str], list[int]]:
    """Return the words, and which of them open a sentence or line: two characters after one that ends the last.

    Whatever stands between. The question mark is the full-width one, which is a letter of words here.
    """
    words: list[str] = []
    opens: list[int] = []
    at = 0
    for found in (_OPENING_TOO if "?" in folded else _OPENING).finditer(folded):
        end = found.end()
        if folded[end] in " \n":
            words += folded[at:end].split()
            opens.append(len(words))
        else:
            joins = found[0] == "?" and folded[end] != ALONE
            end += joins
            words += folded[at:end].split()
            opens.append(len(words) + (not joins))
        at = end
    words += folded[at:].split()
    return words, opens


def _known(words: list[str], lexicon: Lexicon) -> list[Kept]:
    """Return what is known of the words; what is not is found out, and kept."""
    known: list[Any] = list(map(lexicon.kept.get, words))
    if not all(known):
        met = _meet({word: None for word, each in zip(words, known, strict=True) if each is None}, lexicon)
        known = [each or met[word] for word, each in zip(words, known, strict=True)]
    return known


def _meet(words: Iterable[str], lexicon: Lexicon) -> dict[str, Kept]:
    """Find out about new words, and keep those that are not long."""
    words, row, group = list(words), lexicon.rows.made.__getitem__, lexicon.group
    stems, keys = _hashes(words)
    stem_rows, rows = ([key >> _SHIFT for key in each] for each in (stems, keys))
    lexicon.rows.make(stem_rows + rows)
    pairs = [key * _PAIR & _MASK for key in keys]
    triples = [key * _PAIR & _MASK for key in pairs]
    groups = map(group.get, keys, map(group.get, stems, repeat(0)))
    nexts = map(lexicon.nexts.get, keys, repeat(_NOTHING))
    weights = map(add, map(row, stem_rows), map(row, rows))
    met = dict(zip(words, zip(keys, pairs, triples, groups, nexts, weights, strict=True), strict=True))
    if len(lexicon.kept) + len(met) > _MOST_KEPT:
        lexicon.kept.clear()
    lexicon.kept.update({word: each for word, each in met.items() if len(word) <= _LONGEST_KEPT})
    return met


def _hashes(words: list[str]) -> tuple[list[int], list[int]]:
    """Return the hashes of stems and of words."""
    totals = [
        sum(map(mul, map(ord, word), POWERS)) + ONES[len(word)] if len(word) > 1 else ord(word) + 1 for word in words
    ]
    firsts = [
        sum(map(mul, map(ord, word[:STEM]), POWERS)) + ONES[STEM] if len(word) > STEM else total
        for word, total in zip(words, totals, strict=True)
    ]
    return [(total + _PAIR) * _MIX & _MASK for total in firsts], [total * _MIX & _MASK for total in totals]


_LAST_ROW = ROWS - 1


def _lookup(
    groups: list[int], phrases: Iterable[int], pairs: list[int], triples: list[int], known: dict[int, int]
) -> list[int]:
    """Put the classes of phrases in; where entries overlap the longest one holds. Return which words have a class."""
    for at in phrases:
        group = known.get(pairs[at] & _MASK)
        if at < len(triples):
            group = known.get(triples[at] & _MASK, group)
        if group:
            groups[at] = group
    hits = list(compress(count(), groups))
    if len(hits) > MAX_HITS:
        for at in hits[MAX_HITS // 2 : -MAX_HITS // 2]:
            groups[at] = 0
        del hits[MAX_HITS // 2 : -MAX_HITS // 2]
    return hits


def _skeleton(chars: int, groups: list[int], hits: list[int], opens: list[int]) -> list[int]:
    """Return columns for the sizes, and for the classes met: first, last, alone, opening a sentence, in pairs."""
    columns = _sizes(chars, len(groups), len(hits))
    if hits:
        met = list(filter(None, groups))
        columns += (met[0] + (3 * N_CLASS if hits[0] < 2 else 4 * N_CLASS), met[-1] + 5 * N_CLASS)  # noqa: PLR2004
        columns += met
        columns += [groups[at] + N_CLASS for at in opens if groups[at]]
        columns += [
            PAIRS + 2 * N_CLASS * group + 2 * after + (then - at <= NEAR)
            for group, after, at, then in zip(met, met[1:], hits, hits[1:], strict=False)
        ]
    return columns


def _sizes(chars: int, count: int, hits: int) -> list[int]:
    """Return columns for the length (steps of root two), the mean length of a word, and the share of words known."""
    length = min(int(2 * math.log2(chars)), 23)
    mean = min(chars // (count + 1), 15)
    known = min(20 * hits // (count + 1), 15)
    return [SIZES + length, SIZES + 24 + mean, SIZES + 40 + known]


def _shape(signs: bytes) -> dict[int, int]:
    """Count neighbours. Small letters in a row, and with blanks between, are most of a text: they go out first."""
    letters = signs
    for run in _RUNS:
        letters = letters.replace(run, _SMALL)
    rest = letters
    for run in _SPACED:
        rest = rest.replace(run, _SMALL)
    seen, last = memoryview(rest), len(rest) - 1
    shape = Counter(seen[: len(rest) & ~1].cast("H").tolist() + seen[1 : 1 + (last & ~1)].cast("H").tolist())
    spaced = (len(letters) - len(rest)) // 2
    for pair, times in ((SMALL * 257, len(signs) - len(letters)), (SMALL * 256, spaced), (SMALL, spaced)):
        if times:
            shape[pair] += times
    return shape


_SMALL, _APART = bytes([SMALL]), bytes([BLANK, SMALL])
_RUNS = [_SMALL * 4, _SMALL * 3, _SMALL * 2]
_SPACED = [_SMALL + 2 * _APART, _SMALL + _APART]
NEIGHBOURS = [int.from_bytes((one, other), sys.byteorder) for one in range(CATEGORIES) for other in range(CATEGORIES)]
"""Two categories as one number, in the order of the columns of shape."""
_NUMBER = {pair: at for at, pair in enumerate(NEIGHBOURS)}
_NOTHING: frozenset[int] = frozenset()


def build_lexicon(entries: dict[int, int], phrases: Iterable[tuple[int, int]], rows: Rows | None = None) -> Lexicon:
    """Return the lexicon for entries ``{hash: class}``; of entries whose first 18 bits are the same the first holds.

    Args:
        entries: hashes and classes.
        phrases: the hashes of the first two words of those that have more than one.
        rows: weights; training needs none.
    """
    firsts: dict[int, int] = {}
    for key in entries:
        firsts.setdefault(key >> (64 - _SLOT_BITS), key)
    group = {key: entries[key] for key in firsts.values()}
    nexts: dict[int, set[int]] = {}
    for first, second in phrases:
        nexts.setdefault(first, set()).add(second)
    rows = rows or Rows(bytes([ZERO]) * (HEADS * ROWS))
    return Lexicon(group, entries, {first: frozenset(each) for first, each in nexts.items()}, rows, {})


def entry_keys(entry: str) -> list[int]:
    """Return the hash under which a lexicon entry is found, then those of its words if it has more than one.

    An entry is one to three words, or a five-letter stem and ``*``.

    Raises:
        ValueError: the entry has more than three words, or a stem of another length.
    """
    words = _cut(_read(entry.removesuffix("*"))[0])[0]
    if entry.endswith("*"):
        if len(entry) != STEM + 1 or len(words) != 1:
            raise ValueError(f"{entry!r}: a stem is five letters and a star")
        return _hashes(words)[0]
    if not 1 <= len(words) <= 3:  # noqa: PLR2004 (pairs and triples are hashed, nothing longer)
        raise ValueError(f"{entry!r} is {len(words)} words long; one to three are possible")
    keys = _hashes(words)[1]
    whole = reduce(lambda key, after: (key * _PAIR + after) & _MASK, keys)
    return [whole, *keys] if len(keys) > 1 else keys
