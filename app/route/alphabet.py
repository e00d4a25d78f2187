"""The classifier's tables by character: what it folds to, whether it joins into words, what it looks like."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
CATEGORIES = 24
OPENS = frozenset("\n.!?:;\u3002\uff01\uff1f\uff1a\u0964\u061f")
"""Characters after which, and after any other, a sentence or line begins."""
ALONE = "\x1f"
"""Stands before and after a character that is a word by itself; ``str.split`` takes it for a blank."""
_PLANE = 1 << 16
"""What lies above the basic plane counts as one symbol."""


class Alphabet(NamedTuple):
    """Tables for ``translate``: of bytes, for texts that are ASCII, and of code points for all others.

    ``folds`` leave letters of words, folded, and of what is no word a line end where a sentence may end, else a blank;
    ``signs`` give categories.
    """

    folds: bytes
    signs: bytes
    fold: dict[int, str]
    sign: dict[int, int]


@cache
def alphabet() -> Alphabet:
    """Return the tables; those of code points know a character once it was met."""
    fold, sign = _Table(_folded), _Table(_category)
    codes = range(128)
    folds, signs = "".join([fold[code] for code in codes]).encode(), bytes([sign[code] for code in codes])
    return Alphabet(folds + bytes(128), signs + bytes(128), fold, sign)


class _Table(dict[int, T]):
    """What characters of the basic plane are found to be, by code point; what lies above is found anew each time."""

    def __init__(self, find: Callable[[int], T]) -> None:
        self._find = find

    def __missing__(self, code: int) -> T:
        found = self._find(code)
        if code < _PLANE:
            self[code] = found
        return found


_JOINED = ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x2000), (0x30A0, 0x3100), (0xFF10, 0xFF5B))
"""Letters that join into words; what follows are characters that are words by themselves."""
_SINGLE = ((0x3400, 0xA000), (0xE00, 0xEFF), (0x3041, 0x30A0), (0xAC00, 0xD7A4))
_NO_LETTERS = frozenset("\u00d7\u00f7\u037e\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u30fb\uff1a\uff1b")
_FOLDED = ((0x41, 0x250), (0x370, 0x530), (0x1E00, 0x2000), (0xFF01, 0xFF5F))
"""Where letters have a case, an accent or a width."""


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= code < high for low, high in ranges)


def _folded(code: int) -> str:
    """Fold: upper to lower case, accented to plain Latin letters, full-width to ASCII and every digit to 0."""
    sign = chr(code)
    if _within(code, _SINGLE):
        return f"{ALONE}{sign}{ALONE}"
    if (_within(code, _JOINED) or sign in "+#") and sign not in _NO_LETTERS:  # C++, C#, F#
        return _letter(sign)
    return "\n" if sign in OPENS else " "


def _letter(sign: str) -> str:
    """Fold a letter; a few accents that stand alone, and Ogham's space, come out as a blank."""
    if "0" <= sign <= "9":
        return "0"
    if sign in "\u0419\u0439":  # Cyrillic short i is a letter of its own
        return "\u0439"
    if sign.isascii():
        return sign.lower()
    if not _within(ord(sign), _FOLDED):
        return " " if sign.isspace() else sign
    from unicodedata import normalize

    return normalize("NFKD", sign).lower()[0]


_ALIKE = (
    " \t", "\n\r", "_", ".", ",\u3001\u3002\uff0c", ";", "(", ")", "{}", "[]", "=", "<>", "'\"", "`", "+-*/",
    "?!\uff1f\uff01", ":\uff1a", "$\\^",
)  # fmt: skip
"""Signs that look alike, by category; after them come small, capital, digit, other, further letters, ideographs."""
_SIGNS = {ord(sign): number for number, signs in enumerate(_ALIKE) for sign in signs}
BLANK = 0
SMALL, _CAPITAL, _DIGIT, _OTHER, _FURTHER, _IDEOGRAPH = range(18, 24)
_RANGES = (
    (0x61, 0x7B, SMALL), (0x41, 0x5B, _CAPITAL), (0x30, 0x3A, _DIGIT), (0xC0, 0x2000, _FURTHER),
    (0x3041, 0xD7A4, _IDEOGRAPH),
)  # fmt: skip


def _category(code: int) -> int:
    """Return what a character looks like."""
    known = _SIGNS.get(code)
    if known is not None:
        return known
    return next((category for low, high, category in _RANGES if low <= code < high), _OTHER)
