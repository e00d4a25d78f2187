"""What kind of call this is and how hard: a linear model over one pass of the text, pure and in bounded time.

The weights are a small file trained by ``scripts/train-classifier``; ``weights/MODEL_CARD.md`` says on what, and how
far the figures hold. Scoring needs numpy only.
"""

from __future__ import annotations

import math
from bisect import bisect
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.call import Reasons, Verdict
from app.route import features as f
from app.route.classify_text import Turns, read, tokens

KINDS: tuple[str, ...] = ("code", "chat", "extraction", "translation", "summarise", "math", "creative", "analysis")
"""The closed set of kinds; the first has a head of its own, the others share a vote."""

WEIGHTS = Path(__file__).parent / "weights" / "classifier.npz"

FOLLOW_UP_CHARS = 160
"""A last message up to this long may lean on the turn before it."""

LENGTH_SHARE = 0.4
"""Difficulty for each doubling of the length, within the clip by the weights, beyond it by :func:`classify`."""

KIND_SHARE = {
    "code": 1.25, "chat": -1.0, "extraction": 0.5, "translation": -0.5, "summarise": -0.5, "math": 0.1,
    "creative": -2.0, "analysis": 0.0,
}  # fmt: skip
"""Difficulty added by kind: examinations do not show that weak models fall behind on code, and hardly on prose."""

SYSTEM_SHARE, EARLIER_SHARE, FENCED = 0.25, 0.75, 1.5
"""How much of the system prompt's and of the earlier turn's log odds for code counts, and what a fenced answer adds."""

_MOST_SYSTEMS = 512
"""System prompts whose log odds are kept."""

BOUND = 4.0
"""Log odds of another turn count up to here, so that a change of subject is still judged by itself."""


class Model(NamedTuple):
    """The loaded weights: one column a head (the kinds, then difficulty by outcomes and by steps).

    ``systems`` keeps the log odds for code of the last system prompts, by digest: they come again from call to call.
    """

    lexicon: f.Lexicon
    rows: f.Floats
    skeleton: f.Floats
    shape: f.Floats
    bias: f.Floats
    edges: tuple[float, ...]
    systems: dict[bytes, float]


class Scores(NamedTuple):
    """Log odds for code and for each other kind; difficulty by outcomes, and by the steps of a calculation."""

    code: float
    others: list[float]
    hard: float
    steps: float


@cache
def load(path: Path = WEIGHTS) -> Model:
    """Read weights once (about 10 ms).

    Raises:
        FileNotFoundError: the weights file is not installed.
        ValueError: the weights were trained for another layout of the features.
    """
    with np.load(path) as file:
        if file["rows"].shape != (f.ROWS, len(KINDS) + 2):
            raise ValueError(f"{path} does not fit this version: train it again with scripts/train-classifier")
        lexicon = f.build_lexicon(dict(zip(file["key"].tolist(), file["group"].tolist(), strict=True)))
        rows, skeleton, shape = (
            file[name].astype(np.float32) * file[f"{name}_step"] for name in ("rows", "skeleton", "shape")
        )
        return Model(lexicon, rows, skeleton, shape, file["bias"], tuple(file["edges"].tolist()), {})


def classify(messages: list[dict[str, Any]], tools: bool = False, model: Model | None = None) -> Verdict:
    """Judge the messages of an OpenAI chat body, by the last user message first.

    Never raises on malformed messages: what cannot be read counts as empty.

    Args:
        messages: the body's ``messages``; content may be text, a list of parts, or null.
        tools: whether the call offers tools or functions to the model.
        model: other weights than those in use.

    Returns:
        A kind of :data:`KINDS`, a complexity from 1 to 10, and an estimate of the prompt's tokens.
    """
    model = model or load()
    turns = read(messages)
    text = f.clip(turns.last)
    _, found = f.extract(text, model.lexicon)
    scores = score(model, found)
    kind = kind_of(scores, scores.code + _context(model, turns, scores.code))
    estimate = tokens(messages)
    complexity = 1 + bisect(model.edges, hardness(scores, kind) + _length_bonus(len(turns.last)))
    fenced = "```" in text
    plain = _reasons(kind, complexity, estimate, turns.images, fenced=fenced, tools=tools)
    return Verdict(kind, complexity, estimate, Reasons(plain, partial(_quotes, kind, text, model, fenced=fenced)))


def difficulty(text: str) -> float:
    """Return the difficulty of one prompt on the model's own scale: only the order of two values means anything."""
    model = load()
    _, found = f.extract(f.clip(text), model.lexicon)
    scores = score(model, found)
    return hardness(scores, kind_of(scores, scores.code)) + _length_bonus(len(text))


def kind_of(scores: Scores, code: float) -> str:
    """Return the kind, given the log odds for code with the conversation counted in."""
    return "code" if code > 0 else KINDS[1 + scores.others.index(max(scores.others))]


def hardness(scores: Scores, kind: str) -> float:
    """Return the difficulty of a prompt of this kind: calculations go by their steps, all else by outcomes."""
    return (scores.steps if kind == "math" else scores.hard) + KIND_SHARE[kind]


def score(model: Model, found: f.Features) -> Scores:
    """Return the scores of all heads for the features of one text."""
    total = f.row_values(len(found.rows)).dot(model.rows.take(found.rows, axis=0))  # a product is a sum, and faster
    total += f.skeleton_values(len(found.skeleton)).dot(model.skeleton.take(found.skeleton, axis=0))
    total += found.shape.dot(model.shape)
    total += model.bias
    code, *others, hard, steps = total.tolist()
    return Scores(code, others, hard, steps)


def _length_bonus(chars: int) -> float:
    """Return what text beyond the clip adds."""
    limit = f.HEAD + f.TAIL
    return LENGTH_SHARE * math.log2(chars / limit) if chars > limit else 0.0


def _context(model: Model, turns: Turns, code: float) -> float:
    """Return the log odds for code that other turns add to a short last message; 0 where they could not turn it."""
    if len(turns.last) > FOLLOW_UP_CHARS:
        return 0.0
    most = SYSTEM_SHARE * BOUND * bool(turns.system) + (EARLIER_SHARE * BOUND + FENCED) * bool(turns.earlier)
    if abs(code) >= most:
        return 0.0
    evidence = 0.0
    if turns.earlier:
        evidence += EARLIER_SHARE * _bounded_code(model, turns.earlier) + FENCED * turns.fenced
    if turns.system:
        evidence += SYSTEM_SHARE * _system_code(model, turns.system)
    return evidence


def _system_code(model: Model, text: str) -> float:
    clipped = f.clip(text)
    digest = blake2b(clipped.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    code = model.systems.get(digest)
    if code is None:
        if len(model.systems) >= _MOST_SYSTEMS:
            model.systems.clear()
        code = model.systems[digest] = _bounded_code(model, clipped)
    return code


def _bounded_code(model: Model, text: str) -> float:
    _, found = f.extract(f.clip(text), model.lexicon)
    return max(-BOUND, min(BOUND, score(model, found).code))


_ASKS = {
    "code": ("make", "modify", "codeverb", "codenoun", "maybecode", "language", "maybelang", "library", "fault", "how"),
    "chat": ("greeting", "question", "how", "life", "explain", "easy"),
    "extraction": ("extract",),
    "translation": ("translate", "tongue"),
    "summarise": ("summarise",),
    "math": ("math", "proof"),
    "creative": ("prose", "imagine", "make"),
    "analysis": ("analysis", "explain", "science", "design", "proof"),
}
_GROUPS = {kind: frozenset(f.CLASSES.index(name) for name in names) for kind, names in _ASKS.items()}
_HARD = frozenset(f.CLASSES.index(name) for name in ("science", "design", "proof"))
_QUOTE = 48
LONG_TOKENS = 1500
"""Prompts above this many tokens are called long in the reasons."""


def _reasons(kind: str, complexity: int, estimate: int, images: int, *, fenced: bool, tools: bool) -> tuple[str, ...]:
    """Return short sentences: what the kind rests on, what the complexity rests on, what else was seen."""
    reasons = [f"asks for {kind}"]
    if fenced:
        reasons.append("holds a fenced block")
    reasons.append(f"complexity {complexity} of 10")
    if estimate > LONG_TOKENS:
        reasons.append(f"long prompt ({estimate:,} tokens)")
    if images:
        reasons.append(f"{images} image{'s' if images > 1 else ''}")
    if tools:
        reasons.append("offers tools")
    return tuple(reasons)


def _quotes(kind: str, text: str, model: Model, *, fenced: bool) -> tuple[str, ...]:
    """Return what the first reasons quote: the phrase that the kind rests on, and the one that the complexity does."""
    words, found = f.extract(text, model.lexicon)  # anew: what was found takes ten times the memory of the text
    asked, hard = (_quoted(words, found, groups) for groups in (_GROUPS[kind], _HARD))
    return (asked, "", hard) if fenced else (asked, hard)


def _quoted(words: f.Words, found: f.Features, groups: frozenset[int]) -> str:
    """Return up to one phrase of the text, in quotes, that spans neighbouring words of these classes."""
    at = [word for word, group in found.hits if group in groups]
    if not at:
        return ""
    start, end = words.bounds()
    last = first = at[0]
    for word in at[1:]:
        if word - last > f.NEAR or end[word] - start[first] > _QUOTE:
            break
        last = word
    phrase = " ".join(words.text[start[first] : end[last]].split())
    return f": '{phrase[:_QUOTE]}'"
