"""What the classifier sees in a text: hashed words, n-grams, lexicon classes and character shape, numpy only.

One pass serves every head. Words are hashed without a Python loop: with ``P`` the running sum of ``code[i] * BASE**i``
(modulo 2**64) the hash of ``text[s:e]`` is ``(P[e] - P[s]) * BASE**-s`` (Rabin and Karp's rolling hash); an odd base has an
inverse. The work is bounded: a longer text is cut to its first ``HEAD`` and last ``TAIL`` characters.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEAD, TAIL = 1000, 400
"""Characters kept of a long text: its start says what is asked; the end repeats it under pasted material."""

ROWS = 1 << 15
"""Rows of the table of hashed n-grams."""

CLASSES = (
    "none", "make", "modify", "codeverb", "codenoun", "maybecode", "language", "maybelang", "library", "prose",
    "explain", "question", "how", "translate", "summarise", "extract", "math", "tongue", "greeting", "analysis",
    "science", "design", "easy", "followup", "format", "life", "fault", "constraint", "career", "imagine", "negation",
    "proof",
)  # fmt: skip
"""Word classes of the lexicon; the position is the class number."""

N_CLASS = 32
CATEGORIES = 24
NUMBERS = 24
SKELETON = 8 * N_CLASS + 2 * N_CLASS * N_CLASS
SHAPE = CATEGORIES * CATEGORIES
NEAR = 3
"""Two lexicon words at most this many words apart belong together."""
MAX_HITS = 96

_U64 = np.uint64
_BASE = 0x9E3779B97F4A7C15
_MIX = _U64(0xD6E8FEB86659FD93)
_PAIR = _U64(0xC2B2AE3D27D4EB4F)
_SHIFT = _U64(32)
_SLOT_BITS = 18
_SLOT_SHIFT = _U64(64 - _SLOT_BITS)
_SIZE = HEAD + TAIL + 8

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float32]


class Alphabet(NamedTuple):
    """Tables by code point (the basic plane; what lies above counts as one symbol)."""

    fold: Hashes
    word: NDArray[np.uint8]
    category: NDArray[np.int64]
    power: Hashes
    inverse: Hashes


class Lexicon(NamedTuple):
    """Word classes by hash: ``slot`` finds the entry, ``key`` proves it."""

    slot: NDArray[np.uint16]
    key: Hashes
    group: NDArray[np.uint8]


class Words(NamedTuple):
    """Where the words of a text begin and end (in ``text``), and the hashes of words, pairs, triples and stems."""

    text: str
    start: Ints
    end: Ints
    keys: Hashes
    word_of: Ints
    chars: Hashes
    codes: NDArray[np.uint32]


class Features(NamedTuple):
    """Columns of the linear model: ``rows`` and ``skeleton`` are indices, ``shape`` and ``numbers`` are values."""

    rows: Ints
    skeleton: Ints
    shape: Floats
    numbers: Floats
    hits: tuple[tuple[int, int], ...]


def clip(text: str) -> str:
    """Return the part of the text that is looked at, at most ``HEAD + TAIL + 1`` characters."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


@cache
def alphabet() -> Alphabet:
    """Return the tables, built once (about 5 ms)."""
    powers = [1]
    inverses = [1]
    inverse = pow(_BASE, -1, 1 << 64)
    for _ in range(_SIZE):
        powers.append(powers[-1] * _BASE % (1 << 64))
        inverses.append(inverses[-1] * inverse % (1 << 64))
    return Alphabet(_fold(), _word(), _category(), np.array(powers, _U64), np.array(inverses, _U64))


def _fold() -> Hashes:
    """Map upper to lower case, accented to plain Latin letters, full-width to ASCII and every digit to 0."""
    import unicodedata

    fold = np.arange(1 << 16, dtype=_U64)
    for low, high in ((0x41, 0x250), (0x370, 0x530), (0x1E00, 0x2000), (0xFF01, 0xFF5F)):
        for code in range(low, high):
            plain = unicodedata.normalize("NFKD", chr(code)).lower()
            fold[code] = ord(plain[0]) if plain and 0xD7 != code != 0xF7 else code  # noqa: PLR2004 (the two signs)
    fold[0x439] = 0x439  # Cyrillic short i is a letter of its own
    fold[0x419] = 0x439
    fold[ord("0") : ord("9") + 1] = ord("0")
    fold[[9, 10, 13, 0xA0, 0x3000]] = 32
    mixed = (fold + _U64(1)) * _MIX
    return mixed ^ (mixed >> _SHIFT)


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


def _category() -> NDArray[np.int64]:
    """Return what a character looks like, for counting pairs of neighbours."""
    category = np.full(1 << 16, 21, np.int64)
    for number, signs in enumerate(
        (" \t", "\n\r", "_", ".", ",", ";", "(", ")", "{}", "[]", "=", "<>", "'\"", "`", "+-*/", "?!", ":", "$\\^")
    ):
        category[[ord(sign) for sign in signs]] = number
    category[ord("a") : ord("z") + 1] = 18
    category[ord("A") : ord("Z") + 1] = 19
    category[ord("0") : ord("9") + 1] = 20
    category[0xC0:0x2000] = 22
    category[0x3041:0xD7A4] = 23
    category[[0x3001, 0x3002, 0xFF0C]] = 4
    category[[0xFF1F, 0xFF01]] = 15
    category[0xFF1A] = 16
    return category


def words(text: str) -> Words:
    """Cut a text into words and hash them; ``text`` should have passed :func:`clip`."""
    table = alphabet()
    text = f" {text} "
    codes = np.minimum(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), 0xFFFF)
    kind = table.word[codes]
    inside = kind != 0
    joined = kind == 1
    joined = joined[1:] & joined[:-1]
    start = np.flatnonzero(inside[1:] > joined) + 1
    end = np.flatnonzero(inside[:-1] > joined) + 1
    size = len(codes)
    total = np.zeros(size + 1, _U64)
    np.cumsum(table.fold[codes] * table.power[:size], out=total[1:])
    keys, word_of = _grams(total, table.inverse, start, end)
    chars = _mix((total[4:] - total[:-4]) * table.inverse[: size - 3])
    return Words(text, start, end, keys, word_of, chars, codes)


def _mix(value: Hashes) -> Hashes:
    value = (value ^ (value >> _SHIFT)) * _MIX
    return value ^ (value >> _SHIFT)


def _grams(total: Hashes, inverse: Hashes, start: Ints, end: Ints) -> tuple[Hashes, Ints]:
    """Return the hashes of stems (five letters), words, pairs and triples, and the first word of each."""
    back = inverse[start]
    before = total[start]
    one = (total[end] - before) * back
    long = np.flatnonzero(end - start > 5)  # noqa: PLR2004 (a stem is five letters)
    stem = (total[start[long] + 5] - before[long]) * back[long]
    two = one[:-1] * _PAIR + one[1:]
    three = two[:-1] * _PAIR + one[2:]
    keys = _mix(np.concatenate((stem + _PAIR, one, two, three)))
    at = np.arange(len(one))
    return keys, np.concatenate((long, at, at[:-1], at[:-2]))


def build_lexicon(entries: dict[int, int]) -> Lexicon:
    """Return the tables for entries ``{hash: class}``; of two entries in one slot the first one holds."""
    slot = np.zeros(1 << _SLOT_BITS, np.uint16)
    keys = np.array([0, *entries], _U64)
    for number, key in enumerate(entries, 1):
        at = key >> (64 - _SLOT_BITS)
        slot[at] = slot[at] or number
    return Lexicon(slot, keys, np.array([0, *entries.values()], np.uint8))


def row_scale(count: int) -> float:
    """Return the value of each hashed column: one over the root of their number, so that long texts do not shout."""
    return 1.0 / math.sqrt(count or 1)


def skeleton_scale(count: int) -> float:
    """Return the value of each skeleton column."""
    return 2.0 / math.sqrt(count + 4)


def entry_key(entry: str) -> int:
    """Return the hash under which a lexicon entry is found: one to three words, or a five-letter stem and ``*``.

    Raises:
        ValueError: the entry has more than three words, or a stem of another length.
    """
    if entry.endswith("*"):
        found = words(entry[:-1] + "xxxxxx")
        if len(entry) != 6 or len(found.start) != 1:  # noqa: PLR2004
            raise ValueError(f"{entry!r}: a stem is five letters and a star")
        return int(found.keys[0])
    found = words(entry)
    count = len(found.start)
    if not 1 <= count <= 3:  # noqa: PLR2004
        raise ValueError(f"{entry!r} is {count} words long; one to three are possible")
    return int(found.keys[-1])


def extract(text: str, lexicon: Lexicon) -> tuple[Words, Features]:
    """Return the words and the features of a clipped text."""
    found = words(text)
    at, group = _lookup(found, lexicon)
    rows = np.concatenate((found.keys, found.chars)) >> _U64(24) & _U64(ROWS - 1)
    category = alphabet().category[found.codes]
    shape = np.bincount(category[:-1] * CATEGORIES + category[1:], minlength=SHAPE)
    skeleton = _skeleton(found, at, group)
    hits = tuple(zip(at.tolist(), group.tolist(), strict=True))
    values = np.sqrt(np.minimum(shape, 16)).astype(np.float32) * np.float32(0.25)
    return found, Features(rows.astype(np.int64), skeleton, values, _numbers(found, shape, len(hits)), hits)


def _lookup(found: Words, lexicon: Lexicon) -> tuple[Ints, Ints]:
    """Return the words that the lexicon knows and their classes; where entries overlap the longest one holds."""
    entry = lexicon.slot[found.keys >> _SLOT_SHIFT]
    hit = np.flatnonzero((lexicon.key[entry] == found.keys) & (entry != 0))
    classes = np.zeros(len(found.start), np.uint8)
    classes[found.word_of[hit]] = lexicon.group[entry[hit]]  # in order: stems, words, pairs, triples; the last wins
    at = np.flatnonzero(classes)
    if len(at) > MAX_HITS:
        at = np.concatenate((at[: MAX_HITS // 2], at[-MAX_HITS // 2 :]))
    return at, classes[at].astype(np.int64)


def _skeleton(found: Words, at: Ints, group: Ints) -> Ints:
    """Return columns for the classes met: alone, opening a sentence, first, last, and in pairs near or far."""
    if not len(at):
        return np.zeros(0, np.int64)
    near = np.minimum(np.diff(at), NEAR + 1) <= NEAR
    pairs = (group[:-1] * N_CLASS + group[1:]) * 2 + near
    opens = group[_opens(found, at)]
    early = group[found.start[at] < 120]  # noqa: PLR2004 (about twenty words)
    first = group[:1] + (3 * N_CLASS if at[0] < 2 else 4 * N_CLASS)  # noqa: PLR2004
    return np.concatenate(
        (group, opens + N_CLASS, early + 2 * N_CLASS, first, group[-1:] + 5 * N_CLASS, pairs + 8 * N_CLASS)
    )


def _opens(found: Words, at: Ints) -> NDArray[np.bool_]:
    """Tell which words open a sentence or line (first or second word of it)."""
    ends = _ENDS[found.codes]
    count = np.cumsum(ends)
    before = found.start[np.maximum(at - 2, 0)]
    return (at < 2) | (count[found.start[at]] > count[before])  # noqa: PLR2004


_ENDS = np.zeros(1 << 16, np.int64)
_ENDS[[0x0A, 0x2E, 0x21, 0x3F, 0x3A, 0x3B, 0x3002, 0xFF01, 0xFF1F, 0xFF1A, 0x964, 0x61F]] = 1


def _numbers(found: Words, shape: Ints, hits: int) -> Floats:
    """Return length in buckets of a factor two, and ratios that need no table."""
    text = found.text
    size = len(found.codes)
    count = len(found.start)
    values = np.zeros(NUMBERS, np.float32)
    values[min(size.bit_length(), 12)] = 1
    values[13] = size / (HEAD + TAIL)
    values[14] = "```" in text
    values[15] = text.rstrip()[-1:] in "?？؟" and count > 0
    values[16] = min(text.count("\n"), 20) / 10
    values[17] = min(size / (count + 1), 12) / 6
    values[18] = hits / (count + 1)
    values[19] = min(text.count("?"), 4) / 2
    values[20] = "()" in text or "=>" in text or "->" in text or "::" in text or "==" in text
    values[21] = "\\" in text and "$" in text
    values[22] = "](" in text or "http" in text
    values[23] = min(int(shape[20 * CATEGORIES :].sum()) / (size + 1), 0.5)
    return values
