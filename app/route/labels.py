"""What a router can learn from a sample, without the text: the columns of the classifier's model that a prompt has.

A column is a hash of 15 bits of a word, a stem, a pair or a triple, a class of words, or how often two kinds of
characters are neighbours. No text can be read from them, though somebody who guesses a text can tell whether it fits.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from app.route import features as f
from app.route.classify import load
from app.route.classify_text import read
from app.route.parity import Label

if TYPE_CHECKING:
    from app.call import Verdict


def label_of(messages: list[dict[str, Any]], verdict: Verdict | None) -> Label:
    """Return what the classifier sees of the last user message."""
    found = f.extract(f.clip(read(messages).last), load().lexicon)
    columns = {
        "rows": found.rows(),
        "skeleton": found.skeleton,
        "shape": [[at, round(value, 4)] for at, value in found.neighbours()],
    }
    kind, complexity = (verdict.kind, verdict.complexity) if verdict is not None else (None, None)
    return Label(kind, complexity, layout(), orjson.dumps(columns).decode())


@cache
def layout() -> str:
    """Return what tells this meaning of the columns from any other: their numbers, and the lexicon."""
    told = f"{f.ROWS} {f.SKELETON} {f.SHAPE}".encode() + load().lexicon.identity
    return hashlib.blake2b(told, digest_size=16).hexdigest()
