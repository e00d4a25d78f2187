"""What the classifier sees in a text: hashed words, pairs and stems, lexicon classes, and the shape of its characters.

One pass serves every head. Words are hashed without a Python loop: with ``P`` the running sum of ``code[i] * BASE**i``
modulo 2**64, the hash of ``text[s:e]`` is ``(P[e] - P[s]) * BASE**-s`` (Rabin and Karp's rolling hash; an odd base has
an inverse), and its high bits after one odd multiplication are its column (Fibonacci hashing). Words follow Zipf's law:
nearly all of a text's were met in the texts before it, and their hashes are kept, so that most texts need but the sums
for pairs and triples. The work is bounded: of a longer text only the first ``HEAD`` and last ``TAIL`` characters are
looked at.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from itertools import compress, pairwise
from operator import add, mul
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.route.alphabet import CATEGORIES, OPENS, Hashes, Ints, Signs, alphabet

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

_U64 = np.uint64
_MIX, _PAIR = 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F
_MASK = (1 << 64) - 1
_SLOT_BITS = 18
_ROW_SHIFT, _ROW_MASK = 64 - ROW_BITS, ROWS - 1
_NEIGHBOURS = np.dtype("<u2")

Floats = NDArray[np.float32]

_FEW = 8
"""New words of a text that are hashed one by one and kept; with more of them numpy hashes the whole text."""
_MOST_KEPT, _LONGEST_KEPT = 4096, 24
"""Words that are kept, about 400 bytes each, until there are so many; and their letters."""


class Kept(NamedTuple):
    """What is kept of a word: columns, keys, its shares in those of pairs and triples that it begins, and its class.

    The class is the word's, or else its stem's; 0 for none.
    """

    stem_row: int
    row: int
    key: int
    begins_pair: int
    begins_triple: int
    group: int


class Lexicon(NamedTuple):
    """Word classes by hash: ``slot`` tells by its column where there may be one, ``group`` has it.

    ``entries`` is what it was made of. ``kept`` are folded words of the last texts, bounded, in no order.
    """

    slot: NDArray[np.bool_]
    group: dict[int, int]
    entries: dict[int, int]
    kept: dict[bytes, Kept]

    @property
    def identity(self) -> bytes:
        """What no other lexicon has."""
        entries = self.entries
        return np.array([0, *entries], _U64).tobytes() + np.array([0, *entries.values()], np.intp).tobytes()


class Words(NamedTuple):
    """The words of a text.

    Attributes:
        text: as it was read, with two line ends before and after it.
        signs: the categories of all characters.
        rows: columns of stems, words, pairs and triples, as many of each as there are words.
        keys: hashes of the last of these, whose classes are not looked up yet; they count modulo 2**64.
        groups: classes of the words, as far as they are.
        opens: the words that open a sentence or line.
    """

    text: str
    signs: Signs | bytes
    rows: Ints
    keys: list[int]
    groups: list[int]
    opens: set[int]

    def bounds(self) -> tuple[list[int], list[int]]:
        """Return where the words begin and end."""
        bounds = (_edges(_codes(self.text)) + 1).tolist()
        return bounds[0::2], bounds[1::2]


class Features(NamedTuple):
    """Columns of the linear model: ``rows`` and ``skeleton`` are indices, ``shape`` values, ``hits`` (word, class)."""

    rows: Ints
    skeleton: Ints
    shape: Floats
    hits: list[tuple[int, int]]


def clip(text: str) -> str:
    """Return the part of the text that is looked at, at most ``HEAD + TAIL + 1`` characters."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


@lru_cache(maxsize=1024)
def skeleton_values(count: int) -> Floats:
    """Return the values of the skeleton's columns: one for each size (they come first), less for many classes."""
    values = np.full(count, 2.0 / math.sqrt(count), np.float32)
    values[:N_SIZES] = 1.0
    return values


@lru_cache(maxsize=1024)
def row_values(count: int) -> Floats:
    """Return the values of the hashed columns: they fall with the root of their number: long texts do not shout."""
    return np.full(count, 2.5 / math.sqrt(count or 1), np.float32)


SHAPE_VALUES = (0.25 * np.sqrt(np.arange(17))).astype(np.float32)
"""Value of a pair of neighbouring characters by how often it occurs: the root, up to 16 times."""


_OPENING = re.compile(rb"\n[ \n](?=[^ \n])")


def words(text: str, lexicon: Lexicon | None = None) -> Words:
    """Cut a text into words and hash them; ``text`` should have passed :func:`clip`.

    Args:
        text: to be read.
        lexicon: keeps the words that it meets; without one nothing is kept or looked up.
    """
    text = f"\n\n{text}\n\n"
    if not text.isascii():
        codes = _codes(text)
        edges = _edges(codes)
        opens = {at for at, edge in enumerate(edges[0::2].tolist()) if text[edge - 1] in OPENS}
        table = alphabet()
        return _hashed(text, table.category.take(codes, mode="clip"), table.fold.take(codes, mode="clip"), edges, opens)
    raw = text.encode("ascii")
    fold, category = alphabet().ascii
    folded, signs = raw.translate(fold), raw.translate(category)
    cut = folded.split()
    known = _known(cut, lexicon) if lexicon is not None and cut else None
    if known is None:
        letters = np.frombuffer(folded, np.uint8)
        inside = letters > ord(" ")
        edges = (inside[1:] != inside[:-1]).nonzero()[0]  # every change is a beginning or an end in turn
        return _hashed(text, signs, letters, edges, _opening(folded))
    return Words(text, signs, *_joined(known), _opening(folded))


def _opening(folded: bytes) -> set[int]:
    """Return which words open a sentence or line."""
    opens = set()
    count = at = 0
    for found in _OPENING.finditer(folded):
        count += len(folded[at : found.start()].split())
        at = found.start()
        opens.add(count)
    return opens


def _known(cut: list[bytes], lexicon: Lexicon) -> list[Kept] | None:
    """Return what is known of the words; None where too many are new."""
    known: list[Any] = list(map(lexicon.kept.get, cut))
    new = [at for at, each in enumerate(known) if each is None] if None in known else []
    for at in new[:_FEW]:
        known[at] = _meet(cut[at], lexicon)
    return known if len(new) <= _FEW else None


def _meet(word: bytes, lexicon: Lexicon) -> Kept:
    """Hash one word as :func:`_hashed` does it, and keep it."""
    powers = _powers()
    stem = (sum(map(mul, word[:STEM], powers)) + _PAIR) * _MIX & _MASK
    key = sum(map(mul, word, powers)) * _MIX & _MASK
    group = lexicon.group.get(key, lexicon.group.get(stem, 0))
    pair = key * _PAIR & _MASK
    met = Kept(stem >> _ROW_SHIFT, key >> _ROW_SHIFT, key, pair, pair * _PAIR & _MASK, group)
    if len(word) <= _LONGEST_KEPT:
        if len(lexicon.kept) >= _MOST_KEPT:
            lexicon.kept.clear()
        lexicon.kept[word] = met
    return met


@cache
def _powers() -> list[int]:
    return [int(power) for power in alphabet().power]


def _joined(known: list[Kept]) -> tuple[Ints, list[int], list[int]]:
    """Return columns, keys and classes: those of pairs and triples are sums of what their words bring along.

    A pair or triple past the end is left zero.
    """
    stems, rows, keys, begin_pairs, begin_triples, groups = zip(*known, strict=True)
    pairs = list(map(add, begin_pairs, keys[1:]))
    triples = list(map(add, begin_triples, pairs[1:]))
    both = [*pairs, 0, *triples, *(0, 0)[: len(known)]]
    columns = _array([*stems, *rows, *[key >> _ROW_SHIFT & _ROW_MASK for key in both]])
    return columns, both, list(groups)


def _array(numbers: list[int]) -> Ints:
    """Return the numbers in an array, in half the time that numpy takes to look at each."""
    return np.frombuffer(_packer(len(numbers)).pack(*numbers), np.int64)


@lru_cache(maxsize=1024)
def _packer(count: int) -> Struct:
    return Struct(f"={count}q")


def _hashed(text: str, signs: Signs | bytes, fold: Hashes | Signs, edges: Ints, opens: set[int]) -> Words:
    """Hash all words of a text at once."""
    table = alphabet()
    keys = _grams((fold * table.power[: len(fold)]).cumsum(), table.inverse, edges)
    rows = (keys >> _U64(_ROW_SHIFT)).view(np.int64)
    return Words(text, signs, rows, keys.tolist(), [0] * (len(edges) // 2), opens)


def _codes(text: str) -> Ints:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.intp)


def _edges(codes: Ints) -> Ints:
    """Return in turn the character before a word and its last one; some characters are words by themselves."""
    kind = alphabet().word.take(codes, mode="clip")
    inside = kind != 0
    joined = kind == 1
    joined = joined[1:] & joined[:-1]
    return np.stack(((inside[1:] > joined).nonzero()[0], (inside[:-1] > joined).nonzero()[0]), 1).ravel()


def _grams(total: Hashes, inverse: Hashes, edges: Ints) -> Hashes:
    """Return the hashes of stems, words, pairs and triples, as many of each as there are words.

    Args:
        total: the running sum up to and with each character.
        inverse: of the powers of the base, from the first on.
        edges: in turn the character before a word and its last one.
    """
    back = inverse.take(edges)[0::2]
    begun, ended = total.take(edges).reshape(-1, 2).T
    size = len(begun)
    keys = np.zeros((4, size), _U64)  # stems, words, pairs, triples; a pair or triple past the end is left zero
    stem, one, two, three = keys
    np.subtract(total.take(np.minimum(edges[0::2] + STEM, edges[1::2])), begun, out=stem)
    stem *= back
    stem += _U64(_PAIR)
    np.subtract(ended, begun, out=one)
    one *= back
    np.multiply(one[:-1], _U64(_PAIR), out=two[:-1])
    two[:-1] += one[1:]
    np.multiply(two[:-2], _U64(_PAIR), out=three[:-2])
    three[:-2] += one[2:]
    keys *= _U64(_MIX)
    return keys.ravel()


def build_lexicon(entries: dict[int, int]) -> Lexicon:
    """Return the tables for entries ``{hash: class}``; of entries whose first 18 bits are the same the first holds."""
    firsts: dict[int, int] = {}
    for key in entries:
        firsts.setdefault(key >> (64 - _SLOT_BITS), key)
    group = {key: entries[key] for key in firsts.values()}
    slot = np.zeros(ROWS, np.bool_)
    slot[[key >> _ROW_SHIFT for key in group]] = True
    return Lexicon(slot, group, entries, {})


def entry_key(entry: str) -> int:
    """Return the hash under which a lexicon entry is found: one to three words, or a five-letter stem and ``*``.

    Raises:
        ValueError: the entry has more than three words, or a stem of another length.
    """
    if entry.endswith("*"):
        found = words(entry[:-1] + "xxxxxx")
        if len(entry) != STEM + 1 or len(found.groups) != 1:
            raise ValueError(f"{entry!r}: a stem is five letters and a star")
        return found.keys[0]
    found = words(entry)
    count = len(found.groups)
    if not 1 <= count <= 3:  # noqa: PLR2004 (pairs and triples are hashed, nothing longer)
        raise ValueError(f"{entry!r} is {count} words long; one to three are possible")
    return found.keys[count * count]


def extract(text: str, lexicon: Lexicon) -> tuple[Words, Features]:
    """Return the words and the features of a clipped text."""
    found = words(text, lexicon)
    hits = _lookup(found, lexicon)
    signs = found.signs
    neighbours = np.ndarray((len(signs) - 1,), _NEIGHBOURS, signs, 0, (1,))  # any two bytes in a row as one number
    pairs = np.bincount(alphabet().pair.take(neighbours), minlength=SHAPE)
    return found, Features(found.rows, _skeleton(found, hits), SHAPE_VALUES.take(pairs, mode="clip"), hits)


def _lookup(found: Words, lexicon: Lexicon) -> list[tuple[int, int]]:
    """Return the words that the lexicon knows and their classes; where entries overlap the longest one holds."""
    groups, keys, known = found.groups.copy(), found.keys, lexicon.group
    for at in lexicon.slot.take(found.rows[-len(keys) :]).nonzero()[0].tolist():
        key = keys[at] & _MASK
        if key in known:
            groups[at % len(groups)] = known[key]  # stems to triples: the last one wins
    hits = list(compress(enumerate(groups), groups))
    return hits if len(hits) <= MAX_HITS else hits[: MAX_HITS // 2] + hits[-MAX_HITS // 2 :]


def _skeleton(found: Words, hits: list[tuple[int, int]]) -> Ints:
    """Return columns for the classes met: alone, opening a sentence, first, last, in pairs; and the sizes."""
    columns = _sizes(len(found.text), len(found.groups), len(hits))
    if hits:
        first, last, opens = hits[0], hits[-1][1], found.opens
        columns += [first[1] + (3 * N_CLASS if first[0] < 2 else 4 * N_CLASS), last + 5 * N_CLASS]  # noqa: PLR2004
        columns += [group for _, group in hits]
        columns += [group + N_CLASS for at, group in hits if at in opens]
        columns += [
            PAIRS + 2 * (N_CLASS * group + after) + (then - at <= NEAR) for (at, group), (then, after) in pairwise(hits)
        ]
    return _array(columns)


def _sizes(chars: int, count: int, hits: int) -> list[int]:
    """Return columns for the length (steps of root two), the mean length of a word, and the share of words known."""
    length = min(int(2 * math.log2(chars)), 23)
    mean = min(chars // (count + 1), 15)
    known = min(20 * hits // (count + 1), 15)
    return [SIZES + length, SIZES + 24 + mean, SIZES + 40 + known]
