"""The classifier's tables by character: what it folds to, whether it joins into words, what it looks like."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CATEGORIES = 24
BASE = 0x9E3779B97F4A7C15
MOST_CHARS = 916
"""Powers of the base that there are: no longer text can be hashed."""

_U64 = np.uint64

Ints = NDArray[np.intp]
Signs = NDArray[np.uint8]
Hashes = NDArray[np.uint64]


class Alphabet(NamedTuple):
    """Tables by code point (the basic plane; what lies above counts as one symbol), and the powers of the base.

    ``ascii`` are fold and category for ``bytes.translate``; the former leaves of what is no word a line end where a
    sentence may end, else a blank. ``pair`` numbers two neighbouring categories, by the value of their two bytes, the
    first one low. ``inverse`` begins with the first power.
    """

    fold: Hashes
    word: Signs
    category: Signs
    power: Hashes
    inverse: Hashes
    pair: Ints
    ascii: tuple[bytes, bytes]


@cache
def alphabet() -> Alphabet:
    """Return the tables, built once (about 5 ms)."""
    powers = [1]
    inverses = [1]
    inverse = pow(BASE, -1, 1 << 64)
    for _ in range(MOST_CHARS):
        powers.append(powers[-1] * BASE % (1 << 64))
        inverses.append(inverses[-1] * inverse % (1 << 64))
    fold, word, category = _fold(), _word(), _category()
    second, first = np.divmod(np.arange(CATEGORIES * 256), 256)
    plain = (_split(fold, word) + bytes(128), bytes(category[:128].tolist()) + bytes(128))
    return Alphabet(
        fold, word, category, np.array(powers, _U64), np.array(inverses[1:], _U64), first * CATEGORIES + second, plain
    )


def _split(fold: Hashes, word: Signs) -> bytes:
    ends = ("\n" if chr(code) in OPENS else " " for code in range(128))
    return bytes(int(fold[code]) if word[code] else ord(end) for code, end in enumerate(ends))


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


OPENS = frozenset("\n.!?:;\u3002\uff01\uff1f\uff1a\u0964\u061f")
"""Characters after which, and after a space, a sentence or line begins."""
