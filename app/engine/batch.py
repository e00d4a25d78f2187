"""Continuous batching: which prompts are read when, and one token a step for all that run. Runs on the MLX thread."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import mlx.core as mx
from mlx_lm.utils import maybe_set_recommended_wired_limit

from app.engine.rows import Row, Rows, Step, Token
from app.engine.solo import SoloBatch

if TYPE_CHECKING:
    from app.engine.adapter import KV, Loaded
    from app.engine.rows import Insert

_READ_S = 0.05  # seconds that running sequences wait at most while prompts are read
_MOST_READ_S = 0.2  # seconds where more wait for their first token than run
_LONGEST_STEP = 2048  # prompt tokens of one sequence in one step, mlx-lm's own default
_SMOOTHING = 0.2  # weight of the newest measurement of the reading speed
_CLEAR_STEPS = 512  # steps after which the device's free buffers are given back


class Batch(Protocol):
    """Sequences that are generated together, one token each a step."""

    def insert(self, wanted: Insert) -> int:
        """Add a sequence and return its number."""

    def step(self) -> Step:
        """Read some prompts, or generate a token of every running sequence."""

    def remove(self, uids: list[int], *, keep: bool = False) -> dict[int, tuple[KV, list[int]]]:
        """Take sequences out; with ``keep`` return each one's KV cache and the tokens in it."""

    def extract(self, uid: int) -> tuple[KV, list[int]] | None:
        """Return a copy of a running sequence's KV cache and the tokens in it."""

    def close(self) -> None:
        """Give back what the batch holds; the object is of no use afterwards."""


def make_batch(
    loaded: Loaded,
    *,
    batch: int,
    prefill_batch: int,
    prefill_step: int,
    draft: Loaded | None = None,
    draft_tokens: int = 3,
) -> Batch:
    """Return continuous batching where the model's cache can merge, else one sequence after the other."""
    if draft is not None or not loaded.mergeable:
        return SoloBatch(loaded, prefill_step, draft, draft_tokens)
    return MergedBatch(loaded, batch, prefill_batch, prefill_step)


@dataclass(eq=False, slots=True)
class _Long:
    """A prompt that is read in pieces."""

    rows: Rows
    left: list[int]


class MergedBatch:
    """Sequences that share one KV cache while they run; prompts are read apart and join when they are done."""

    def __init__(self, loaded: Loaded, batch: int, prefill_batch: int, prefill_step: int) -> None:
        self._model, self._eos = loaded.model, loaded.eos
        self._size, self._most, self._least_step = batch, prefill_batch, prefill_step
        self._uids = itertools.count()
        self._waiting: deque[Row] = deque()
        self._long: _Long | None = None
        self._running = Rows(self._model, [], [])
        self._next: mx.array | None = None
        self._read_per_s = self._reading_s = 0.0
        self._long_was_last = False
        self._steps = 0
        self._wired = maybe_set_recommended_wired_limit()

    def insert(self, wanted: Insert) -> int:
        """Add a sequence and return its number."""
        uid = next(self._uids)
        self._waiting.append(Row(uid, wanted, list(wanted.known)))
        return uid

    def step(self) -> Step:
        """Read some prompts, or decode one token of every running sequence.

        A step does one of the two, so that what it has brought is told before the other begins.
        """
        if self._may_read():
            return self._read()
        self._reading_s = 0.0
        return self._decode()

    # --- reading ------------------------------------------------------------------------------------------------

    def _may_read(self) -> bool:
        if not (self._waiting or self._long) or len(self._running) >= self._size:
            return False
        return not self._running.rows or self._reading_s < self._patience_s()

    def _patience_s(self) -> float:
        """Return how long the running sequences wait for those that have nothing yet: longer for more of them."""
        return min(_MOST_READ_S, _READ_S * max(1.0, len(self._waiting) / len(self._running)))

    def _read(self) -> Step:
        began = time.perf_counter()
        if self._long is not None and not (self._long_was_last and self._short_waits()):
            rows, pieces = self._piece(self._long)
        else:
            rows, pieces = self._group()
        rows.read(pieces)
        read = sum(map(len, pieces))
        took = time.perf_counter() - began
        self._reading_s += took
        if read:
            self._read_per_s += (read / took - self._read_per_s) * (_SMOOTHING if self._read_per_s else 1.0)
        if self._long is not None and self._long.rows is rows:
            self._long_was_last = True
            if len(self._long.left) > 1:
                return Step([], [], read)
            self._long = None
        else:
            self._long_was_last = False
        return self._begin(rows, read)

    def _affordable(self) -> int:
        """Return how many prompt tokens this machine reads in about ``_READ_S``."""
        return max(self._least_step, int(self._read_per_s * _READ_S))

    def _piece(self, long: _Long) -> tuple[Rows, list[list[int]]]:
        """Take the next piece of a long prompt; the last token starts the answer and takes no part in the reading."""
        size = min(self._affordable(), _LONGEST_STEP, len(long.left) - 1)
        piece, long.left = long.left[:size], long.left[size:]
        return long.rows, [piece]

    def _short_waits(self) -> bool:
        step = min(self._affordable(), _LONGEST_STEP)
        return any(_to_read(row) <= step for row in self._waiting)

    def _group(self) -> tuple[Rows, list[list[int]]]:
        """Take the oldest prompt and those like it, or the first piece of a long one.

        Many short prompts are read together where that is quick; where reading is slow it is one at a time, so that the
        running answers are not held up and the first prompts do not wait for the last. While a long prompt is read in
        pieces short ones are read in between, or they would wait for the end of that.
        """
        affordable = self._affordable()
        step = min(affordable, _LONGEST_STEP)
        if self._long is not None:
            _short_first(self._waiting, step)
        _oldest_and_its_likes_first(self._waiting)
        room = min(self._most, self._size - len(self._running))
        count = together([_to_read(row) for row in itertools.islice(self._waiting, room)], affordable)
        rows = Rows.of(self._model, [self._waiting.popleft() for _ in range(count)])
        rest = [row.wanted.rest for row in rows.rows]
        if count == 1 and len(rest[0]) - 1 > step:
            self._long = _Long(rows, rest[0])
            return self._piece(self._long)
        return rows, [tokens[:-1] for tokens in rest]

    def _begin(self, rows: Rows, read: int) -> Step:
        """Draw the first tokens of rows whose prompt is read, and let them run along with the others."""
        last = [row.wanted.rest[-1] for row in rows.rows]
        drawn = rows.next(mx.array(last))
        rows.took(last)
        first: list[int] = drawn.tolist()  # type: ignore[assignment]
        begun = [row.uid for row in rows.rows]
        tokens, going = self._told(rows, first, [row.logprobs for row in rows.rows])
        for at in going:
            rows.rows[at].drawn = first[at]
        if len(going) < len(rows):
            rows.keep(going)
            drawn = drawn[mx.array(going)] if going else drawn
        if going:
            self._running.join(rows)
            self._next = drawn if self._next is None else mx.concatenate([self._next, drawn])
        return Step(tokens, begun, read)

    # --- decoding -----------------------------------------------------------------------------------------------

    def _decode(self) -> Step:
        """Begin the next token of every row, and return the ones before, which the device has meanwhile finished."""
        inputs = self._next
        if inputs is None:
            return Step([], [], 0)
        before = [row.logprobs for row in self._running.rows]
        self._next = self._running.next(inputs)
        drawn: list[int] = inputs.tolist()  # type: ignore[assignment]
        self._running.took(drawn)
        tokens, going = self._told(self._running, drawn, before)
        if len(going) < len(self._running):
            self._drop_all_but(going)
        self._steps += 1
        if self._steps % _CLEAR_STEPS == 0:
            mx.clear_cache()
        return Step(tokens, [], 0)

    def _told(self, rows: Rows, drawn: list[int], logprobs: list[mx.array | None]) -> tuple[list[Token], list[int]]:
        """Return the tokens to tell, the last ones with their row's cache, and the places of the rows that go on."""
        tokens, going = list[Token](), list[int]()
        for at, (row, token, probable) in enumerate(zip(rows.rows, drawn, logprobs, strict=True)):
            if row.drawn is not None:
                row.drawn = None  # told when its prompt was read
                going.append(at)
                continue
            finish = row.count(token, self._eos)
            if finish is None:
                going.append(at)
                tokens.append(Token(row.uid, token, probable, None))
            else:
                tokens.append(Token(row.uid, token, probable, finish, rows.extract(at), row.tokens))
        return tokens, going

    def _drop_all_but(self, going: list[int]) -> None:
        self._running.keep(going)
        self._next = self._next[mx.array(going)] if going and self._next is not None else None

    # --- taking out ---------------------------------------------------------------------------------------------

    def remove(self, uids: list[int], *, keep: bool = False) -> dict[int, tuple[KV, list[int]]]:
        """Take sequences out, whatever their stage; only running ones have a cache worth keeping."""
        found = {uid: self.extract(uid) for uid in uids} if keep else {}
        gone = set(uids)
        self._waiting = deque(row for row in self._waiting if row.uid not in gone)
        if self._long is not None and self._long.rows.rows[0].uid in gone:
            self._long = None
        going = [at for at, row in enumerate(self._running.rows) if row.uid not in gone]
        if len(going) < len(self._running):
            self._drop_all_but(going)
        return {uid: one for uid, one in found.items() if one is not None}

    def extract(self, uid: int) -> tuple[KV, list[int]] | None:
        """Return a copy of a running sequence's KV cache."""
        at = self._running.place(uid)
        if at is None:
            return None
        return self._running.extract(at), list(self._running.rows[at].tokens)

    def close(self) -> None:
        """Restore the wired limit and drop the caches."""
        if self._wired is not None:
            mx.synchronize()
            mx.set_wired_limit(self._wired)
        self._waiting.clear()
        self._long = self._next = self._model = None
        del self._running


def _to_read(row: Row) -> int:
    return len(row.wanted.rest) - 1


def _short_first(waiting: deque[Row], step: int) -> None:
    """Put prompts that need several pieces behind the others."""
    ordered = sorted(waiting, key=lambda row: (_to_read(row) > step, row.uid))
    waiting.clear()
    waiting.extend(ordered)


def _oldest_and_its_likes_first(waiting: deque[Row]) -> None:
    """Put those nearest to the first prompt in length behind it, so that little is padded.

    The oldest always goes next, so nobody is passed over for long.
    """
    oldest = waiting[0]
    ordered = sorted(waiting, key=lambda row: (row is not oldest, abs(_to_read(row) - _to_read(oldest)), row.uid))
    waiting.clear()
    waiting.extend(ordered)


def together(sizes: list[int], affordable: int) -> int:
    """Return how many of the waiting prompts, in order, are read together; one always is.

    A batch costs its longest prompt times their number, as shorter ones are padded.
    """
    count, longest = 1, sizes[0]
    for size in sizes[1:]:
        longest = max(longest, size)
        if (count + 1) * longest > affordable:
            break
        count += 1
    return count
