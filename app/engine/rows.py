"""Sequences side by side in one KV cache of mlx-lm (0.32): reading prompts, choosing tokens. Runs on the MLX thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx_lm.models import cache as kv

from app.engine.sampling import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.engine.grammar import Follower
    from app.engine.sampling import Guard, Sampler

KV = list[Any]


class Insert(NamedTuple):
    """A sequence to generate: ``kept`` holds the keys and values of the first ``len(known)`` tokens."""

    known: list[int]
    rest: list[int]
    kept: KV | None
    max_tokens: int
    sampler: Sampler
    guard: Guard
    processors: Sequence[Callable[[mx.array, mx.array], mx.array]] = ()
    follower: Follower | None = None
    logprobs: bool = False


class Token(NamedTuple):
    """One generated token; ``finish`` is None, ``stop`` (the token is an end token) or ``length``."""

    uid: int
    token: int
    logprobs: Any
    finish: str | None
    kept: KV | None = None
    all_tokens: list[int] | None = None


class Step(NamedTuple):
    """What a step has brought: new tokens, the sequences whose prompt is done, and how many prompt tokens were read."""

    tokens: list[Token]
    begun: list[int]
    read: int


@dataclass(eq=False, slots=True)
class Row:
    """One sequence.

    Attributes:
        tokens: those whose keys and values the cache holds.
        drawn: the newest token, where it is known already: it was told when the row was read.
        made: tokens generated so far.
        logprobs: of the token that is being drawn, where asked for.
        context: the tokens on the device, for processors that look at them.
    """

    uid: int
    wanted: Insert
    tokens: list[int]
    drawn: int | None = None
    made: int = 0
    logprobs: mx.array | None = None
    context: Any = None

    def count(self, token: int, eos: frozenset[int]) -> str | None:
        """Count a generated token and return why it is the last one, or None."""
        self.made += 1
        if token in eos:
            return "stop"
        return "length" if self.made >= self.wanted.max_tokens else None


class Rows:
    """Sequences that are computed together."""

    def __init__(self, model: Any, rows: list[Row], layers: KV) -> None:
        self._model = model
        self.rows = rows
        self._layers = layers

    @classmethod
    def of(cls, model: Any, rows: list[Row]) -> Rows:
        """Return rows with the caches that they bring along, or empty ones."""
        caches = [row.wanted.kept or kv.make_prompt_cache(model) for row in rows]
        return cls(model, rows, [layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)])

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, pieces: list[list[int]]) -> None:
        """Read a piece of each row's prompt, and wait until that is done."""
        longest = max(map(len, pieces))
        padding = [longest - len(piece) for piece in pieces]
        if not longest:
            return
        if any(padding):
            for layer in self._layers:
                layer.prepare(lengths=[len(piece) for piece in pieces], right_padding=padding)
        tokens = mx.array([piece + [0] * pad for piece, pad in zip(pieces, padding, strict=True)])
        self._model(tokens, cache=self._layers)
        if any(padding):
            for layer in self._layers:
                layer.finalize()
        mx.eval([layer.state for layer in self._layers])
        mx.clear_cache()
        for row, piece in zip(self.rows, pieces, strict=True):
            row.tokens += piece

    def next(self, inputs: mx.array) -> mx.array:
        """Begin to compute the tokens that follow ``inputs``, one a row, and return them before they are there."""
        logits = self._model(inputs[:, None], cache=self._layers)[:, -1, :]
        logits = self._processed(inputs, logits)
        drawn = choose(logits, [row.wanted.sampler for row in self.rows])
        asked = [(at, row) for at, row in enumerate(self.rows) if row.wanted.logprobs]
        for at, row in asked:
            row.logprobs = logits[at] - mx.logsumexp(logits[at], keepdims=True)
        mx.async_eval(drawn, [row.logprobs for _, row in asked])  # type: ignore[no-untyped-call]
        return drawn

    def _processed(self, inputs: mx.array, logits: mx.array) -> mx.array:
        if any(row.wanted.processors for row in self.rows):
            logits = mx.concatenate([self._one(at, row, inputs, logits) for at, row in enumerate(self.rows)])
        followed = [(at, row) for at, row in enumerate(self.rows) if row.wanted.follower is not None]
        if not followed:
            return logits
        mx.async_eval(logits)  # type: ignore[no-untyped-call]  # the model computes while the masks are made
        mask = _mask(followed, inputs.tolist(), logits.shape[-1])  # type: ignore[arg-type]
        if len(followed) == len(self.rows):
            return mx.where(mask, logits, -float("inf"))
        where = mx.array([at for at, _ in followed])
        logits[where] = mx.where(mask, logits[where], -float("inf"))
        return logits

    def _one(self, at: int, row: Row, inputs: mx.array, logits: mx.array) -> mx.array:
        one = logits[at : at + 1]
        if not row.wanted.processors:
            return one
        if row.context is None:
            row.context = kv.TokenBuffer(row.tokens)  # type: ignore[no-untyped-call]
        context = row.context.update_and_fetch(inputs[at : at + 1])
        for process in row.wanted.processors:
            one = process(context, one)
        return one

    def took(self, tokens: list[int]) -> None:
        """Note the tokens that ``next`` was given last: the cache holds them now."""
        for row, token in zip(self.rows, tokens, strict=True):
            row.tokens.append(token)

    def join(self, other: Rows) -> None:
        """Take in the rows of another object, which is of no use afterwards."""
        if not self.rows:
            self._layers = other._layers
        elif other.rows:
            for mine, its in zip(self._layers, other._layers, strict=True):
                mine.extend(its)
        self.rows += other.rows

    def keep(self, places: list[int]) -> None:
        """Drop all rows but those at these places."""
        self.rows = [self.rows[at] for at in places]
        if not places:
            self._layers = []
        for layer in self._layers:
            layer.filter(places)

    def place(self, uid: int) -> int | None:
        """Return where a sequence is, or None."""
        return next((at for at, row in enumerate(self.rows) if row.uid == uid), None)

    def extract(self, at: int) -> KV:
        """Return a copy of a row's cache."""
        return [layer.extract(at) for layer in self._layers]


def _mask(followed: list[tuple[int, Row]], inputs: list[int], width: int) -> mx.array:
    """Return what each followed row may say next, one row of booleans each."""
    words = [_allowed(row, inputs[at]) for at, row in followed]
    bits = np.unpackbits(np.stack(words).view(np.uint8), axis=1, bitorder="little", count=width)
    return mx.array(bits.view(np.bool_))


def _allowed(row: Row, token: int) -> Any:
    """Return the words of a row's mask; a row that fails is told so, may say anything, and harms no other."""
    follower, guard = row.wanted.follower, row.wanted.guard
    assert follower is not None  # noqa: S101 - the caller has looked
    if guard.error is None:
        try:
            return follower.after(token if row.made else None)
        except Exception as error:  # noqa: BLE001 - any error here would lose every other row
            guard.caught(error)
    return follower.anything()
