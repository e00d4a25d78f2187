"""What the classifier sees in a text: hashed words, pairs and stems, lexicon classes, and the shape of its characters.

One pass serves every head and numpy does all of it. Words are hashed without a Python loop: with ``P`` the running sum
of ``code[i] * BASE**i`` modulo 2**64, the hash of ``text[s:e]`` is ``(P[e] - P[s]) * BASE**-s`` (Rabin and Karp's
rolling hash; an odd base has an inverse), and its high bits after one odd multiplication are its column (Fibonacci
hashing). The work is bounded: of a longer text only the first ``HEAD`` and last ``TAIL`` characters are looked at.
"""

from __future__ import annotations

import math
from functools import cache
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
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float32]


class Alphabet(NamedTuple):
    """Tables by code point (the basic plane; what lies above counts as one symbol), and the powers of the base."""

    fold: Hashes
    word: NDArray[np.uint8]
    category: Ints
    opens: NDArray[np.bool_]
    power: Hashes
    inverse: Hashes


class Lexicon(NamedTuple):
    """Word classes by hash: ``slot`` finds the entry, ``key`` proves it."""

    slot: NDArray[np.uint16]
    key: Hashes
    group: Ints


class Words(NamedTuple):
    """Where the words of ``text`` begin and end, and the hashes of stems, words, pairs and triples."""

    text: str
    codes: Ints
    start: Ints
    end: Ints
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


def skeleton_values(count: int) -> Floats:
    """Return the values of the skeleton's columns: one for each size (they come first), less for many classes."""
    values = np.empty(count, np.float32)
    values.fill(2.0 / math.sqrt(count))
    values[:N_SIZES] = 1.0
    return values


def row_values(count: int) -> Floats:
    """Return the values of the hashed columns: they fall with the root of their number: long texts do not shout."""
    values = np.empty(count, np.float32)
    values.fill(2.5 / math.sqrt(count or 1))
    return values


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
    return Alphabet(_fold(), _word(), _category(), _opens(), np.array(powers, _U64), np.array(inverses, _U64))


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


def _word() -> NDArray[np.uint8]:
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


def _category() -> Ints:
    """Return what a character looks like, for counting pairs of neighbours."""
    category = np.full(1 << 16, 21, np.intp)
    category[0xC0:0x2000] = 22
    category[0x3041:0xD7A4] = 23
    category[ord("a") : ord("z") + 1] = 18
    category[ord("A") : ord("Z") + 1] = 19
    category[ord("0") : ord("9") + 1] = 20
    for number, signs in enumerate(_SIGNS):
        category[[ord(sign) for sign in signs]] = number
    return category


def _opens() -> NDArray[np.bool_]:
    """Return the characters after which, and after a space, a sentence or line begins."""
    opens = np.zeros(1 << 16, np.bool_)
    opens[[ord(sign) for sign in "\n.!?:;\u3002\uff01\uff1f\uff1a\u0964\u061f"]] = True
    return opens


def words(text: str) -> Words:
    """Cut a text into words and hash them; ``text`` should have passed :func:`clip`."""
    table = alphabet()
    text = f"\n\n{text}\n\n"
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.intp)
    kind = table.word.take(codes, mode="clip")
    if text.isascii():  # every change is a beginning or an end in turn
        turns = (kind[1:] != kind[:-1]).nonzero()[0]
        turns += 1
        start, end = turns[0::2], turns[1::2]
    else:
        start, end = _bounds(kind)
    size = len(codes)
    total = np.empty(size + 1, _U64)
    total[0] = 0
    np.cumsum(table.fold.take(codes, mode="clip") * table.power[:size], out=total[1:])
    return Words(text, codes, start, end, _grams(total, table.inverse, start, end))


def _bounds(kind: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Return the beginnings and ends of words where some characters are words by themselves."""
    inside = kind != 0
    joined = kind == 1
    joined = joined[1:] & joined[:-1]
    start = (inside[1:] > joined).nonzero()[0]
    end = (inside[:-1] > joined).nonzero()[0]
    return start + 1, end + 1


def _grams(total: Hashes, inverse: Hashes, start: Ints, end: Ints) -> Hashes:
    """Return the hashes of stems, words, pairs and triples, as many of each as there are words."""
    back = inverse.take(start)
    before = total.take(start)
    size = len(start)
    keys = np.empty(4 * size, _U64)  # stems, words, pairs, triples; a pair or triple past the end is left zero
    stem, one, two, three = keys[:size], keys[size : 2 * size], keys[2 * size : 3 * size], keys[3 * size :]
    np.subtract(total.take(np.minimum(start + STEM, end)), before, out=stem)
    stem *= back
    np.subtract(total.take(end), before, out=one)
    one *= back
    stem += _PAIR
    two[-1:] = 0
    three[-2:] = 0
    np.multiply(one[:-1], _PAIR, out=two[:-1])
    two[:-1] += one[1:]
    np.multiply(two[:-2], _PAIR, out=three[:-2])
    three[:-2] += one[2:]
    keys *= _MIX
    return keys


def build_lexicon(entries: dict[int, int]) -> Lexicon:
    """Return the tables for entries ``{hash: class}``; of two entries in one slot the first one holds."""
    slot = np.zeros(1 << _SLOT_BITS, np.uint16)
    keys = np.array([0, *entries], _U64)
    at = (keys[1:] >> _SLOT_SHIFT).astype(np.intp)
    slot[at[::-1]] = np.arange(len(entries), 0, -1, dtype=np.uint16)
    return Lexicon(slot, keys, np.array([0, *entries.values()], np.intp))


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
    at, group = _lookup(found, lexicon)
    rows = (found.keys >> _ROW_SHIFT).view(np.int64)
    category = alphabet().category.take(found.codes, mode="clip")
    pairs = category[:-1] * CATEGORIES
    pairs += category[1:]
    shape = SHAPE_VALUES.take(np.bincount(pairs, minlength=SHAPE), mode="clip")
    hits = list(zip(at.tolist(), group.tolist(), strict=True))
    return found, Features(rows, _skeleton(found, at, group, hits), shape, hits)


def _lookup(found: Words, lexicon: Lexicon) -> tuple[Ints, Ints]:
    """Return the words that the lexicon knows and their classes; where entries overlap the longest one holds."""
    entry = lexicon.slot.take((found.keys >> _SLOT_SHIFT).view(np.int64))
    maybe = entry.nonzero()[0]
    entry = entry.take(maybe)
    hit = (lexicon.key.take(entry) == found.keys.take(maybe)).nonzero()[0]
    size = len(found.start)
    classes = np.zeros(size, np.intp)
    classes[maybe.take(hit) % (size or 1)] = lexicon.group.take(entry.take(hit))  # stems to triples: the last one wins
    at = classes.nonzero()[0]
    if len(at) > MAX_HITS:
        at = np.concatenate((at[: MAX_HITS // 2], at[-MAX_HITS // 2 :]))
    return at, classes.take(at)


def _skeleton(found: Words, at: Ints, group: Ints, hits: list[tuple[int, int]]) -> Ints:
    """Return columns for the classes met: alone, opening a sentence, first, last, in pairs; and the sizes."""
    few = _sizes(len(found.codes), len(found.start), len(hits))
    if not hits:
        return np.array(few, np.intp)
    first, last = hits[0], hits[-1][1]
    few += [first[1] + (3 * N_CLASS if first[0] < 2 else 4 * N_CLASS), last + 5 * N_CLASS]  # noqa: PLR2004
    opens = group[alphabet().opens.take(found.codes.take(found.start.take(at) - 2), mode="clip")]
    pairs = group[:-1] * (2 * N_CLASS)
    pairs += group[1:] * 2
    pairs += at[1:] - at[:-1] <= NEAR
    pairs += PAIRS
    opens += N_CLASS
    return np.concatenate((few, group, opens, pairs))


def _sizes(chars: int, count: int, hits: int) -> list[int]:
    """Return columns for the length (steps of root two), the mean length of a word, and the share of words known."""
    length = min(int(2 * math.log2(chars)), 23)
    mean = min(chars // (count + 1), 15)
    known = min(20 * hits // (count + 1), 15)
    return [SIZES + length, SIZES + 24 + mean, SIZES + 40 + known]
