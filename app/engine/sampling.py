"""Choosing the next token: temperature, top_p, top_k, min_p, penalties, biases. Nothing here can fail a batch."""

from __future__ import annotations

import functools
import logging
import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Callable[[mx.array], mx.array]
    Processor = Callable[[mx.array, mx.array], mx.array]

log = logging.getLogger("sluice.engine")
_MASK64 = (1 << 64) - 1
_NEVER = -float("inf")
_ALL = (0, 1.0, 0.0)  # nothing left out


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer's tokens are chosen; 0 turns ``top_k`` and ``min_p`` off, 1.0 turns ``top_p`` off.

    ``repetition`` is multiplicative over prompt and answer (1.0 is off), the other two penalties are OpenAI's, over the
    answer alone. ``seed`` None draws one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: tuple[tuple[int, float], ...] = ()


class Guard:
    """Remembers the first error of a sequence's own functions, so that the sequence fails and the batch does not."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def caught(self, error: Exception) -> None:
        """Note an error; only the first counts."""
        if self.error is None:
            self.error = error
            log.warning("a sequence's processor failed: %r", error)


class Sampler:
    """Draws one sequence's tokens.

    The random key is a function of the seed, of the prompt (``salt``) and of how many tokens were drawn before, and of
    nothing else: the same seed gives the same answer alone and in any batch. Without the salt, callers that always send
    the same seed would get the same luck for every prompt, and a second try the luck of the first.
    """

    def __init__(self, how: Sampling, salt: int = 0) -> None:
        self.how = how
        self._seed = _mix(how.seed if how.seed is not None else secrets.randbits(63), salt)
        self._drawn = 0

    def key(self) -> tuple[int, int]:
        """Return the next random key, as mlx has it: two words of 32 bits."""
        self._drawn += 1
        return divmod(_mix(self._seed, self._drawn), 1 << 32)

    @property
    def narrowing(self) -> tuple[int, float, float]:
        """What is left out before the draw; rows of equal narrowing are narrowed together."""
        return self.how.top_k, self.how.top_p, self.how.min_p


def choose(logits: mx.array, samplers: Sequence[Sampler]) -> mx.array:
    """Return a token for each row of logits, drawn by its own sampler; all rows in a few operations.

    A draw is the largest of the logits plus Gumbel noise (Gumbel-max trick), whose noise has the row's own key.
    """
    temperatures = [sampler.how.temperature for sampler in samplers]
    if not any(temperatures):
        return mx.argmax(logits, axis=-1)
    scaled = logits.astype(mx.float32) * mx.array([[1.0 / (t or 1.0)] for t in temperatures])
    noise = _noise(logits.shape[-1])(mx.array(np.array([s.key() for s in samplers], dtype=np.uint32)))
    if not all(temperatures):
        noise = mx.where(mx.array([[t > 0] for t in temperatures]), noise, 0.0)
    return mx.argmax(_narrowed(scaled, samplers) + noise, axis=-1)


@functools.cache
def _noise(width: int) -> Rows:
    return mx.vmap(lambda key: mx.random.gumbel((width,), key=key))


def _narrowed(scaled: mx.array, samplers: Sequence[Sampler]) -> mx.array:
    groups: dict[tuple[int, float, float], list[int]] = {}
    for at, sampler in enumerate(samplers):
        groups.setdefault(sampler.narrowing, []).append(at)
    if len(groups) == 1:
        return _narrow(scaled, *next(iter(groups)))
    for how, places in groups.items():
        if how != _ALL:
            where = mx.array(places)
            scaled[where] = _narrow(scaled[where], *how)
    return scaled


def _mix(seed: int, step: int) -> int:
    """Return a well mixed 64-bit number of two (splitmix64's finaliser, Steele et al. 2014)."""
    z = (seed + step * 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def _narrow(scaled: mx.array, top_k: int, top_p: float, min_p: float) -> mx.array:
    """Apply top_k, top_p and min_p to logits; what is left out gets minus infinity."""
    top_k = min(top_k, scaled.shape[-1] - 1)
    if top_k > 0:
        kth = -mx.partition(-scaled, top_k - 1, axis=-1)[..., top_k - 1 : top_k]
        scaled = mx.where(scaled < kth, _NEVER, scaled)
    if top_p < 1.0:
        scaled = _nucleus(scaled, top_p)
    if min_p > 0.0:
        floor = mx.max(scaled, axis=-1, keepdims=True) + math.log(min_p)
        scaled = mx.where(scaled < floor, _NEVER, scaled)
    return scaled


def _nucleus(scaled: mx.array, top_p: float) -> mx.array:
    """Keep the likeliest tokens whose probabilities just reach ``top_p`` (Holtzman et al. 2019)."""
    descending = -mx.sort(-scaled, axis=-1)
    probabilities = mx.softmax(descending, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = mx.maximum((before < top_p).sum(axis=-1, keepdims=True), 1)
    floor = mx.take_along_axis(descending, kept - 1, axis=-1)
    return mx.where(scaled < floor, _NEVER, scaled)


def make_processor(sampling: Sampling, prompt_tokens: int, vocabulary: int) -> Processor | None:
    """Return the function that applies biases and penalties, or None where there are none."""
    parts = [
        part
        for part in (_bias(sampling, vocabulary), _repetition(sampling), _penalties(sampling, prompt_tokens))
        if part is not None
    ]
    if not parts:
        return None

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        for part in parts:
            logits = part(tokens, logits)
        return logits

    return process


def _bias(sampling: Sampling, vocabulary: int) -> Processor | None:
    if not sampling.bias:
        return None
    known = {token: value for token, value in sampling.bias if 0 <= token < vocabulary}
    if not known:
        return None
    at, values = mx.array(list(known)), mx.array(list(known.values()))
    return lambda _, logits: logits.at[:, at].add(values.astype(logits.dtype))


def _repetition(sampling: Sampling) -> Processor | None:
    """Divide the logits of tokens already seen where positive, multiply where negative (Keskar et al. 2019)."""
    if sampling.repetition == 1.0:
        return None
    penalty = sampling.repetition

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = logits[:, tokens]
        logits[:, tokens] = mx.where(seen > 0, seen / penalty, seen * penalty)
        return logits

    return process


def _penalties(sampling: Sampling, prompt_tokens: int) -> Processor | None:
    """Subtract ``presence`` once and ``frequency`` per occurrence from what the answer already holds (OpenAI)."""
    if sampling.presence == 0 and sampling.frequency == 0:
        return None

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        answer = tokens[prompt_tokens:]
        if answer.size == 0:
            return logits
        counts = mx.zeros(logits.shape[-1], mx.float32).at[answer].add(1.0)
        penalty = counts * sampling.frequency + (counts > 0) * sampling.presence
        return logits - penalty.astype(logits.dtype)[None]

    return process


def guarded(processor: Processor, guard: Guard) -> Processor:
    """Return the processor with every exception caught and noted."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        if guard.error is not None:
            return logits
        try:
            return processor(tokens, logits)
        except Exception as error:  # noqa: BLE001 - any error here would lose every other sequence of the batch
            guard.caught(error)
            return logits

    return process
