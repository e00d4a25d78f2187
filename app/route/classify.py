"""What kind of call this is and how hard: a linear model over one pass of the text, pure and in bounded time.

The weights are a small file trained by ``scripts/train-classifier``; ``weights/MODEL_CARD.md`` says on what, and how
far the figures hold. Scoring adds integers (:mod:`app.route.packed`).
"""

from __future__ import annotations

import math
from bisect import bisect
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.call import Reasons, Verdict
from app.route import features as f
from app.route import packed
from app.route.classify_text import Turns, read, tokens
from app.route.packed import unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: tuple[str, ...] = ("code", "chat", "extraction", "translation", "summarise", "math", "creative", "analysis")
"""The closed set of kinds; the first has a head of its own, the others share a vote."""

WEIGHTS = Path(__file__).parent / "weights" / "classifier.weights"

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
    """The loaded weights: one lane a head (the kinds, then difficulty by outcomes and by steps), and the steps' sizes.

    The rows of words are in the lexicon; ``shape`` has its rows by two neighbours, numbered as a text's are.
    ``systems`` keeps the log odds for code of the last system prompts, by digest: they come again from call to call.
    """

    lexicon: f.Lexicon
    skeleton: Sequence[int]
    shape: dict[int, int]
    row_steps: Sequence[float]
    skeleton_steps: Sequence[float]
    shape_steps: Sequence[float]
    bias: Sequence[float]
    edges: Sequence[float]
    systems: dict[bytes, float]


_SKELETON_UNIT, _SHAPE_UNIT = 1 << 18, 1 << 16
"""Rows are multiplied by values before they are added up: by whole numbers, so many to 1.

A lane holds any such sum (:mod:`app.route.packed`): of the skeleton, three sizes and up to 193 classes at 2 / sqrt(196)
come to under 31 times 127; of the shape, 904 neighbours in 576 pairs to at most 0.25 * sqrt(904 * 576), 181 times 127.
"""
_TIMES = [round(_SHAPE_UNIT * f.shape_value(times)) for times in range(f.HEAD + f.TAIL + 6)]


class Scores(NamedTuple):
    """Log odds for code and for each other kind; difficulty by outcomes, and by the steps of a calculation."""

    code: float
    others: list[float]
    hard: float
    steps: float


@cache
def load(path: Path = WEIGHTS) -> Model:
    """Read weights once (about 15 ms).

    Raises:
        FileNotFoundError: the weights file is not installed.
        ValueError: the weights were trained for another layout of the features.
    """
    found = packed.read(path)
    sizes = [len(table.raw) // packed.HEADS for table in found.tables]
    if sizes != [f.ROWS, f.SKELETON, f.SHAPE]:
        raise ValueError(f"{path} does not fit this version: train it again with scripts/train-classifier")
    rows, skeleton, shape = found.tables
    return Model(
        f.build_lexicon(found.entries, found.phrases, packed.Rows(rows.raw)),
        skeleton.rows(),
        dict(zip(f.NEIGHBOURS, shape.rows(), strict=True)),
        rows.steps,
        [step / _SKELETON_UNIT for step in skeleton.steps],
        [step / _SHAPE_UNIT for step in shape.steps],
        found.bias,
        found.edges,
        {},
    )


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
    found = f.extract(text, model.lexicon)
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
    found = f.extract(f.clip(text), model.lexicon)
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
    table, columns = model.skeleton.__getitem__, found.skeleton
    sizes, classes = sum(map(table, columns[: f.N_SIZES])), sum(map(table, columns[f.N_SIZES :]))
    skeleton = unpack(_SKELETON_UNIT * sizes + round(_SKELETON_UNIT * f.class_value(len(columns))) * classes)
    neighbours = model.shape
    shape = unpack(sum([neighbours[pair] * _TIMES[times] for pair, times in found.shape.items()]))
    value = f.row_value(found.grams)
    code, *others, hard, steps = [
        bias + value * row * row_step + group * step + pair * pair_step
        for bias, row, row_step, group, step, pair, pair_step in zip(
            model.bias,
            unpack(found.packed),
            model.row_steps,
            skeleton,
            model.skeleton_steps,
            shape,
            model.shape_steps,
            strict=True,
        )
    ]
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
    found = f.extract(f.clip(text), model.lexicon)
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
    found = f.extract(text, model.lexicon)  # anew: what was found takes ten times the memory of the text
    asked, hard = (_quoted(found, groups) for groups in (_GROUPS[kind], _HARD))
    return (asked, "", hard) if fenced else (asked, hard)


def _quoted(found: f.Features, groups: frozenset[int]) -> str:
    """Return up to one phrase of the text, in quotes, that spans neighbouring words of these classes."""
    at = [word for word, group in found.hits if group in groups]
    if not at:
        return ""
    start, end = found.bounds()
    last = first = at[0]
    for word in at[1:]:
        if word - last > f.NEAR or end[word] - start[first] > _QUOTE:
            break
        last = word
    phrase = " ".join(found.text[start[first] : end[last]].split())
    return f": '{phrase[:_QUOTE]}'"
