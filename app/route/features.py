"""What the classifier sees in a text: hashed words, pairs and stems, lexicon classes, and the shape of its characters.

One pass serves every head and numpy does all of it. Words are hashed without a Python loop: with ``P`` the running sum
of ``code[i] * BASE**i`` modulo 2**64, the hash of ``text[s:e]`` is ``(P[e] - P[s]) * BASE**-s`` (Rabin and Karp's
rolling hash; an odd base has an inverse), and its high bits after one odd multiplication are its column (Fibonacci
hashing). The work is bounded: of a longer text only the first ``HEAD`` and last ``TAIL`` characters are looked at.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
CATEGORIES = 24
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
_BASE = 0x9E3779B97F4A7C15
_MIX = _U64(0xD6E8FEB86659FD93)
_PAIR = _U64(0xC2B2AE3D27D4EB4F)
_SLOT_BITS = 18
_SLOT_SHIFT = _U64(64 - _SLOT_BITS)
_ROW_SHIFT = _U64(64 - ROW_BITS)
_SIZE = HEAD + TAIL + 16

Ints = NDArray[np.intp]
Signs = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float32]


class Alphabet(NamedTuple):
    """Tables by code point (the basic plane; what lies above counts as one symbol), and the powers of the base.

    ``ascii`` are fold, word and category for ``bytes.translate``. ``inverse`` begins with the first power.
    """

    fold: Hashes
    word: Signs
    category: Signs
    power: Hashes
    inverse: Hashes
    ascii: tuple[bytes, bytes, bytes]


class Lexicon(NamedTuple):
    """Word classes by hash: ``slot`` tells where there may be one, ``group`` has it; ``identity`` is no other's."""

    slot: NDArray[np.bool_]
    group: dict[int, int]
    identity: bytes


class Words(NamedTuple):
    """Where the words of ``text`` begin and end, and the hashes of stems, words, pairs and triples.

    ``signs`` are the categories of all characters.
    """

    text: str
    signs: Signs
    start: list[int]
    end: list[int]
    keys: Hashes


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


@cache
def alphabet() -> Alphabet:
    """Return the tables, built once (about 5 ms)."""
    powers = [1]
    inverses = [1]
    inverse = pow(_BASE, -1, 1 << 64)
    for _ in range(_SIZE):
        powers.append(powers[-1] * _BASE % (1 << 64))
        inverses.append(inverses[-1] * inverse % (1 << 64))
    fold, word, category = _fold(), _word(), _category()
    plain = (_ascii(fold), _ascii(word), _ascii(category))
    return Alphabet(fold, word, category, np.array(powers, _U64), np.array(inverses[1:], _U64), plain)


def _ascii(table: Hashes | Signs) -> bytes:
    return bytes(table[:128].tolist()) + bytes(128)


def _fold() -> Hashes:
    """Map upper to lower case, accented to plain Latin letters, full-width to ASCII and every digit to 0."""
    import unicodedata

    fold = np.arange(1 << 16, dtype=_U64)
    for low, high in ((0x41, 0x250), (0x370, 0x530), (0x1E00, 0x2000), (0xFF01, 0xFF5F)):
        for code in range(low, high):
            plain = unicodedata.normalize("NFKD", chr(code)).lower()
            fold[code] = ord(plain[0]) if plain else code
    fold[[0x419, 0x439]] = 0x439  # Cyrillic short i is a letter of its own
    fold[ord("0") : ord("9") + 1] = ord("0")
    return fold + _U64(1)


def _word() -> Signs:
    """Return 1 for letters that join into words, 2 for characters that are words by themselves, 0 for all else."""
    word = np.zeros(1 << 16, np.uint8)
    for low, high in ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x2000), (0x30A0, 0x3100), (0xFF10, 0xFF5B)):
        word[low:high] = 1
    for low, high in ((0xE00, 0xEFF), (0x3041, 0x30A0), (0x3400, 0xA000), (0xAC00, 0xD7A4)):
        word[low:high] = 2
    word[[ord("+"), ord("#")]] = 1  # C++, C#, F#
    word[[0xD7, 0xF7, 0x37E, 0x589, 0x60C, 0x61B, 0x61F, 0x6D4, 0x964, 0x965, 0x30FB, 0xFF1A, 0xFF1B]] = 0
    return word


_SIGNS = (
    " \t", "\n\r", "_", ".", ",\u3001\u3002\uff0c", ";", "(", ")", "{}", "[]", "=", "<>", "'\"", "`", "+-*/",
    "?!\uff1f\uff01", ":\uff1a", "$\\^",
)  # fmt: skip
"""Signs that look alike, by category; after them come small, capital, digit, other, further letters, ideographs."""


def _category() -> Signs:
    """Return what a character looks like, for counting pairs of neighbours."""
    category = np.full(1 << 16, 21, np.uint8)
    category[0xC0:0x2000] = 22
    category[0x3041:0xD7A4] = 23
    category[ord("a") : ord("z") + 1] = 18
    category[ord("A") : ord("Z") + 1] = 19
    category[ord("0") : ord("9") + 1] = 20
    for number, signs in enumerate(_SIGNS):
        category[[ord(sign) for sign in signs]] = number
    return category


_OPENS = frozenset("\n.!?:;\u3002\uff01\uff1f\uff1a\u0964\u061f")
"""Characters after which, and after a space, a sentence or line begins."""


def words(text: str) -> Words:
    """Cut a text into words and hash them; ``text`` should have passed :func:`clip`."""
    table = alphabet()
    text = f"\n\n{text}\n\n"
    fold: Hashes | Signs
    if text.isascii():
        fold, kind, signs = _translated(text.encode("ascii"), table.ascii)
        edges = (kind[1:] != kind[:-1]).nonzero()[0]  # every change is a beginning or an end in turn
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.intp)
        fold, signs = table.fold.take(codes, mode="clip"), table.category.take(codes, mode="clip")
        edges = _edges(table.word.take(codes, mode="clip"))
    total = (fold * table.power[: len(fold)]).cumsum()
    bounds = (edges + 1).tolist()
    return Words(text, signs, bounds[0::2], bounds[1::2], _grams(total, table.inverse, edges))


def _translated(raw: bytes, tables: tuple[bytes, bytes, bytes]) -> tuple[Signs, Signs, Signs]:
    """Return folded characters, kinds and categories of ASCII: a sixth of the work that tables by code point are."""
    fold, word, category = tables
    return (
        np.frombuffer(raw.translate(fold), np.uint8),
        np.frombuffer(raw.translate(word), np.uint8),
        np.frombuffer(raw.translate(category), np.uint8),
    )


def _edges(kind: Signs) -> Ints:
    """Return the character before and the last one of each word where some characters are words by themselves."""
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
    stem += _PAIR
    np.subtract(ended, begun, out=one)
    one *= back
    np.multiply(one[:-1], _PAIR, out=two[:-1])
    two[:-1] += one[1:]
    np.multiply(two[:-2], _PAIR, out=three[:-2])
    three[:-2] += one[2:]
    keys *= _MIX
    return keys.ravel()


def build_lexicon(entries: dict[int, int]) -> Lexicon:
    """Return the tables for entries ``{hash: class}``; of two entries in one slot the first one holds."""
    slot = np.zeros(1 << _SLOT_BITS, np.bool_)
    group: dict[int, int] = {}
    for key, number in entries.items():
        at = key >> (64 - _SLOT_BITS)
        if not slot[at]:
            slot[at] = True
            group[key] = number
    identity = np.array([0, *entries], _U64).tobytes() + np.array([0, *entries.values()], np.intp).tobytes()
    return Lexicon(slot, group, identity)


def entry_key(entry: str) -> int:
    """Return the hash under which a lexicon entry is found: one to three words, or a five-letter stem and ``*``.

    Raises:
        ValueError: the entry has more than three words, or a stem of another length.
    """
    if entry.endswith("*"):
        found = words(entry[:-1] + "xxxxxx")
        if len(entry) != STEM + 1 or len(found.start) != 1:
            raise ValueError(f"{entry!r}: a stem is five letters and a star")
        return int(found.keys[0])
    found = words(entry)
    count = len(found.start)
    if not 1 <= count <= 3:  # noqa: PLR2004 (pairs and triples are hashed, nothing longer)
        raise ValueError(f"{entry!r} is {count} words long; one to three are possible")
    return int(found.keys[count * count])


def extract(text: str, lexicon: Lexicon) -> tuple[Words, Features]:
    """Return the words and the features of a clipped text."""
    found = words(text)
    hits = _lookup(found, lexicon)
    rows = (found.keys >> _ROW_SHIFT).view(np.int64)
    pairs = np.multiply(found.signs[:-1], CATEGORIES, dtype=np.intp)
    pairs += found.signs[1:]
    shape = SHAPE_VALUES.take(np.bincount(pairs, minlength=SHAPE), mode="clip")
    return found, Features(rows, _skeleton(found, hits), shape, hits)


def _lookup(found: Words, lexicon: Lexicon) -> list[tuple[int, int]]:
    """Return the words that the lexicon knows and their classes; where entries overlap the longest one holds."""
    maybe = lexicon.slot.take((found.keys >> _SLOT_SHIFT).view(np.int64)).nonzero()[0]
    known, size = lexicon.group, len(found.start)
    classes: dict[int, int] = {}
    for at, key in zip(maybe.tolist(), found.keys.take(maybe).tolist(), strict=True):
        if key in known:
            classes[at % size] = known[key]  # stems to triples: the last one wins
    hits = [(at, group) for at, group in sorted(classes.items()) if group]
    return hits if len(hits) <= MAX_HITS else hits[: MAX_HITS // 2] + hits[-MAX_HITS // 2 :]


def _skeleton(found: Words, hits: list[tuple[int, int]]) -> Ints:
    """Return columns for the classes met: alone, opening a sentence, first, last, in pairs; and the sizes."""
    columns = _sizes(len(found.text), len(found.start), len(hits))
    if hits:
        first, last = hits[0], hits[-1][1]
        columns += [first[1] + (3 * N_CLASS if first[0] < 2 else 4 * N_CLASS), last + 5 * N_CLASS]  # noqa: PLR2004
        columns += [group for _, group in hits]
        text, start = found.text, found.start
        columns += [group + N_CLASS for at, group in hits if text[start[at] - 2] in _OPENS]
        columns += [
            PAIRS + 2 * (N_CLASS * group + after) + (then - at <= NEAR) for (at, group), (then, after) in pairwise(hits)
        ]
    return np.array(columns, np.intp)


def _sizes(chars: int, count: int, hits: int) -> list[int]:
    """Return columns for the length (steps of root two), the mean length of a word, and the share of words known."""
    length = min(int(2 * math.log2(chars)), 23)
    mean = min(chars // (count + 1), 15)
    known = min(20 * hits // (count + 1), 15)
    return [SIZES + length, SIZES + 24 + mean, SIZES + 40 + known]
