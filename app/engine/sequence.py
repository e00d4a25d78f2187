"""One answer in the making, on the MLX thread: its sampler, its text, its stop strings, its logprobs."""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine import sampling as sampling_
from app.engine.detokenize import Detokenizer, TokenBytes
from app.engine.errors import EngineError
from app.engine.grammar import Follower, Vocabulary
from app.engine.jobs import Delta, failure
from app.engine.rows import Insert
from app.engine.stop import StopMatcher

if TYPE_CHECKING:
    from app.engine.jobs import Job
    from app.engine.rows import KV, Token

_CHOICE_SEED = 0x5851F42D4C957F2D  # odd: choices of one seed get seeds that differ in all bits after mixing
_NO_CHANCE = -9999.0  # OpenAI's figure for a token that could not be drawn; JSON has no infinity


class Sequence:
    """One choice of a job."""

    def __init__(self, job: Job, choice: int, table: TokenBytes, vocabulary: Vocabulary | None, width: int) -> None:
        self.job, self.choice = job, job.first + choice
        self.guard = sampling_.Guard()
        self.cached = 0
        self.tokens = 0
        self._table = table
        self._text = Detokenizer(table, continues=job.continues)
        self._stop = StopMatcher(job.stops)
        self._logprobs: list[dict[str, Any]] = []
        self._follower = (
            Follower(vocabulary, job.grammar, job.max_tokens) if vocabulary is not None and job.grammar else None
        )
        salt = zlib.crc32(np.asarray(job.prompt, dtype=np.int32).tobytes())
        self.sampler = sampling_.Sampler(_with_choice(job.sampling, choice), salt)
        self._base = sampling_.make_processor(job.sampling, len(job.prompt), width)

    def insert(self, known: int, kept: KV | None) -> Insert:
        """Return what a batch needs to know; ``kept`` holds the first ``known`` tokens of the prompt."""
        return Insert(
            known=self.job.prompt[:known],
            rest=self.job.prompt[known:],
            kept=kept,
            max_tokens=self.job.max_tokens,
            sampler=self.sampler,
            guard=self.guard,
            processors=() if self._base is None else (sampling_.guarded(self._base, self.guard),),
            follower=self._follower,
            logprobs=self.job.top_logprobs is not None,
        )

    def advance(self, token: Token) -> Delta | None:
        """Take the next token and return what there is to tell, if anything."""
        if self.guard.error is not None:
            return failure(
                self.choice, EngineError(f"sampling failed: {self.guard.error}", status=500, code="sampling_failed")
            )
        if token.finish == "stop":
            return self._finished("", "stop")
        self.tokens += 1
        if self.job.top_logprobs is not None:
            self._logprobs.append(self._entry(token, self.job.top_logprobs))
        text = self._stop.feed(self._text.add(token.token))
        if self._stop.hit:
            return self._last(text, "stop")
        if token.finish is not None:
            return self._finished(text, self._length_or_stop(token.token))
        if not text:
            return None
        return Delta(self.choice, text, self.tokens, self._take_logprobs(), None, None, self.cached)

    def _length_or_stop(self, token: int) -> str:
        """A document that the limit found complete has ended by itself, unless the closing rule ended it."""
        if self._follower is None or self._follower.closed_early:
            return "length"
        if self._follower.taken < self.tokens:  # not every batch shows it the last token
            self._follower.take(token)
        return "stop" if self._follower.complete else "length"

    def _finished(self, text: str, finish: str) -> Delta:
        text += self._stop.feed(self._text.end())
        if self._stop.hit:
            finish = "stop"
        elif self._follower is not None and self._follower.closed_early:
            finish = "length"
        return self._last(text + self._stop.flush(), finish)

    def _last(self, text: str, finish: str) -> Delta:
        return Delta(self.choice, text, self.tokens, self._take_logprobs(), finish, None, self.cached)

    def _take_logprobs(self) -> list[dict[str, Any]] | None:
        if self.job.top_logprobs is None:
            return None
        taken, self._logprobs = self._logprobs, []
        return taken

    def _entry(self, token: Token, top: int) -> dict[str, Any]:
        values = np.array(token.logprobs, copy=False).astype(np.float32).reshape(-1)
        best = np.argpartition(values, -top)[-top:] if top else np.empty(0, dtype=np.int64)
        ordered = sorted((int(i) for i in best), key=lambda i: -values[i])
        return {**self._one(token.token, values), "top_logprobs": [self._one(i, values) for i in ordered]}

    def _one(self, token: int, values: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
        raw = self._table.whole(token)
        logprob = float(values[token])
        return {
            "token": raw.decode("utf-8", "replace"),
            "logprob": logprob if np.isfinite(logprob) else _NO_CHANCE,
            "bytes": list(raw),
        }


def _with_choice(base: sampling_.Sampling, choice: int) -> sampling_.Sampling:
    """Return the sampling of the n-th choice: the first one is what n=1 would give."""
    if base.seed is None or choice == 0:
        return base
    return dataclasses.replace(base, seed=base.seed ^ (choice * _CHOICE_SEED))
