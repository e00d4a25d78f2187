"""The only file that knows mlx-lm's API (0.32): loading, batches, KV caches, hidden states. Runs on the MLX thread."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import stream_generate
from mlx_lm.models import cache as kv
from mlx_lm.utils import load_model, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from app.engine.weights import Folder

KV = list[Any]
_EVAL_BYTES = 64 << 20
_PREFILL_S = 0.05  # seconds of one step that may go into reading prompts
_LONGEST_STEP = 2048  # prompt tokens of one sequence in one step, mlx-lm's own default
_SMOOTHING = 0.2  # weight of the newest measurement of the reading speed


@dataclass(slots=True)
class Loaded:
    """A model in memory. Whoever keeps a reference keeps the weights."""

    name: str
    folder: Folder
    model: Any
    tokenizer: Any
    vocabulary: int
    mergeable: bool
    cuttable: bool

    @property
    def eos(self) -> frozenset[int]:
        """The token ids that end an answer."""
        return frozenset(self.tokenizer.eos_token_ids)


class Insert(NamedTuple):
    """A sequence to generate: ``kept`` holds the keys and values of the first ``len(known)`` tokens."""

    known: list[int]
    rest: list[int]
    kept: KV | None
    max_tokens: int
    sampler: Callable[[mx.array], mx.array]
    processors: list[Callable[[mx.array, mx.array], mx.array]]


class Token(NamedTuple):
    """One generated token; ``finish`` is None, ``stop`` (the token is an end token) or ``length``."""

    uid: int
    token: int
    logprobs: Any
    finish: str | None
    kept: KV | None = None
    all_tokens: list[int] | None = None


class Batch(Protocol):
    """Sequences that are generated together, one token each a step."""

    def insert(self, wanted: Insert) -> int:
        """Add a sequence and return its number."""

    def step(self) -> tuple[list[Token], list[int], int]:
        """Do one step: the new tokens, the sequences whose prompt is done, and the prompt tokens read."""

    def remove(self, uids: list[int], *, keep: bool = False) -> dict[int, tuple[KV, list[int]]]:
        """Take sequences out; with ``keep`` return each one's KV cache and the tokens in it."""

    def extract(self, uid: int) -> tuple[KV, list[int]] | None:
        """Return a copy of a running sequence's KV cache and the tokens in it."""

    def close(self) -> None:
        """Give back what the batch holds; the object is of no use afterwards."""


def load_steps(name: str, folder: Folder) -> Generator[float, None, Loaded]:
    """Load a model piece by piece, yielding the loaded fraction, so that other work can go on and it can be stopped.

    Raises:
        Exception: whatever mlx-lm raises for broken or unknown models; see ``faults.explain``.
    """
    model, config = load_model(folder.path, lazy=True)
    yield 0.0
    tokenizer = load_tokenizer(folder.path, eos_token_ids=config.get("eos_token_id"))  # type: ignore[no-untyped-call]
    yield 0.05
    parts: list[Any] = [pair[1] for pair in tree_flatten(model.parameters())]
    total, done, pending = sum(array.nbytes for array in parts) or 1, 0, 0
    group: list[mx.array] = []
    for array in parts:
        group.append(array)
        pending += array.nbytes
        if pending >= _EVAL_BYTES:
            mx.eval(group)
            done, pending, group = done + pending, 0, []
            yield 0.05 + 0.95 * done / total
    mx.eval(group)
    probe = kv.make_prompt_cache(model)
    return Loaded(
        name=name,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        vocabulary=_vocabulary(model, config),
        mergeable=all(hasattr(layer, "merge") for layer in probe),
        cuttable=all(type(layer) is kv.KVCache for layer in probe),
    )


def load_now(name: str, folder: Folder) -> Loaded:
    """Load a model in one go (the draft model, tests)."""
    steps = load_steps(name, folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            loaded: Loaded = end.value
            return loaded


def _vocabulary(model: Any, config: dict[str, Any]) -> int:
    """Return the width of the logits, which includes padding that the tokenizer does not know of."""
    said = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if said:
        return int(said)
    return int(model(mx.array([[0]])).shape[-1])


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


class MergedBatch:
    """Continuous batching on mlx-lm's BatchGenerator."""

    def __init__(self, loaded: Loaded, batch: int, prefill_batch: int, prefill_step: int) -> None:
        from mlx_lm.generate import BatchGenerator

        self._generator: Any = BatchGenerator(
            loaded.model,
            stop_tokens=[[token] for token in loaded.eos],
            completion_batch_size=batch,
            prefill_batch_size=1,
            prefill_step_size=prefill_step,
        )
        self._most, self._least_step = prefill_batch, prefill_step
        self._read_per_s = 0.0

    def insert(self, wanted: Insert) -> int:
        """Add a sequence and return its number."""
        (uid,) = self._generator.insert(
            [wanted.rest],
            max_tokens=[wanted.max_tokens],
            caches=[wanted.kept],
            all_tokens=[list(wanted.known)],
            samplers=[wanted.sampler],
            logits_processors=[wanted.processors],
        )
        return int(uid)

    def step(self) -> tuple[list[Token], list[int], int]:
        """Decode one token of every running sequence and read a piece of the waiting prompts."""
        self._size_prefill()
        counters = self._generator._counters  # noqa: SLF001 - stats() costs a context manager a step
        before, took = counters.prompt_tokens, counters.prompt_time
        prompts, answers = self._generator.next()
        tokens = [Token(r.uid, r.token, r.logprobs, r.finish_reason, r.prompt_cache, r.all_tokens) for r in answers]
        read, took = counters.prompt_tokens - before, counters.prompt_time - took
        if read and took:
            self._read_per_s += (read / took - self._read_per_s) * (_SMOOTHING if self._read_per_s else 1.0)
        return tokens, [r.uid for r in prompts if r.end_of_prompt], read

    def _size_prefill(self) -> None:
        """Read as much of the waiting prompts in this step as takes about ``_PREFILL_S`` on this machine.

        Many short prompts are read together where that is quick; where reading is slow it is one at a time, so that the
        running answers are not held up and the first prompts do not wait for the last.
        """
        generator = self._generator
        waiting, reading = generator._unprocessed_sequences, generator._currently_processing  # noqa: SLF001 - decision 14
        if not waiting and not reading:
            return
        affordable = max(self._least_step, int(self._read_per_s * _PREFILL_S))
        step = min(affordable, _LONGEST_STEP)
        generator.prefill_step_size = generator._prompt_batch.prefill_step_size = step  # noqa: SLF001
        sizes = [_left_to_read(item[0]) for item in reading]
        if len(waiting) > 1:
            _oldest_and_its_likes_first(waiting)
        # At 1 only the last token is left, which starts the answer and takes no part in the reading.
        begun = [size for size in sizes if size > 1]
        fresh = [min(_left_to_read(item[1]), step) for item in itertools.islice(waiting, self._most)]
        generator.prefill_batch_size = len(sizes) + joining(begun, fresh, step, affordable, self._most)

    def remove(self, uids: list[int], *, keep: bool = False) -> dict[int, tuple[KV, list[int]]]:
        """Take sequences out, whatever their stage."""
        removed: dict[int, tuple[KV, list[int]]] = self._generator.remove(uids, return_prompt_caches=keep)
        return removed

    def extract(self, uid: int) -> tuple[KV, list[int]] | None:
        """Return a copy of a sequence's KV cache."""
        found = self._generator.extract_cache([uid]).get(uid)
        return None if found is None else (found[0], list(found[1]))

    def close(self) -> None:
        """Restore the wired limit and drop the caches."""
        self._generator.close()
        self._generator = None


def _oldest_and_its_likes_first(waiting: deque[Any]) -> None:
    """Put the oldest prompt in front and those nearest to it in length behind it, so that little is padded.

    The oldest always goes next, so nobody is passed over for long.
    """
    oldest = min(waiting, key=lambda item: item[0])
    size = _left_to_read(oldest[1])
    ordered = sorted(waiting, key=lambda item: (item is not oldest, abs(_left_to_read(item[1]) - size), item[0]))
    waiting.clear()
    waiting.extend(ordered)


def joining(begun: list[int], fresh: list[int], step: int, affordable: int, most: int) -> int:
    """Return how many of the waiting prompts, in order, are read along with those begun.

    A batch costs its longest prompt times their number, as shorter ones are padded. One may always be read, and one may
    join a long prompt that is read in pieces, or it would wait for the end of that.
    """
    sizes = list(begun)
    for size in fresh:
        count = len(sizes) + 1
        beside_long = count == 2 and sizes[0] > step  # noqa: PLR2004 - the second one
        if sizes and not beside_long and (count > most or count * max(*sizes, size) > affordable):
            break
        sizes.append(size)
    return len(sizes) - len(begun)


def _left_to_read(segments: list[list[int]]) -> int:
    return sum(map(len, segments))


class SoloBatch:
    """One sequence after the other through ``stream_generate``: for caches that cannot merge, and for draft models."""

    def __init__(self, loaded: Loaded, prefill_step: int, draft: Loaded | None, draft_tokens: int) -> None:
        self._loaded = loaded
        self._options: dict[str, Any] = {"prefill_step_size": prefill_step}
        self._draft = draft
        if draft is not None:
            self._options["num_draft_tokens"] = draft_tokens
        self._waiting: deque[tuple[int, Insert]] = deque()
        self._uids = 0
        self._running: Any = None
        self._uid = -1
        self._kv: KV = []
        self._seen: list[int] = []

    def insert(self, wanted: Insert) -> int:
        """Queue a sequence."""
        self._uids += 1
        self._waiting.append((self._uids, wanted))
        return self._uids

    def step(self) -> tuple[list[Token], list[int], int]:
        """Generate one token of the sequence at work; the first one includes its whole prompt."""
        begun: list[int] = []
        read = 0
        if self._running is None:
            if not self._waiting:
                return [], [], 0
            uid, wanted = self._waiting.popleft()
            self._begin(uid, wanted)
            begun, read = [uid], len(wanted.rest)
        made = next(self._running)
        self._seen.append(int(made.token))
        done = made.finish_reason
        token = Token(self._uid, int(made.token), made.logprobs, done)
        if done:
            token = token._replace(kept=self._kv, all_tokens=self._seen)
            self._end()
            # A draft model's last guesses are taken back only now; what the cache holds is what counts.
            held = getattr(token.kept[0], "offset", len(self._seen)) if token.kept else 0
            token = token._replace(all_tokens=(token.all_tokens or [])[:held])
        return [token], begun, read

    def _begin(self, uid: int, wanted: Insert) -> None:
        # A grammar follows the tokens one by one and cannot take back what a draft model proposed in vain.
        draft = None if self._draft is None or wanted.processors else self._draft
        self._kv = (
            wanted.kept if wanted.kept is not None and draft is None else kv.make_prompt_cache(self._loaded.model)
        )
        reused = wanted.kept is not None and draft is None
        options = (
            dict(self._options) if draft is not None else {"prefill_step_size": self._options["prefill_step_size"]}
        )
        cache = self._kv if draft is None else [*self._kv, *kv.make_prompt_cache(draft.model)]
        self._uid, self._seen = uid, [*wanted.known, *wanted.rest]
        self._running = stream_generate(
            self._loaded.model,
            self._loaded.tokenizer,
            wanted.rest if reused else list(self._seen),
            max_tokens=wanted.max_tokens,
            draft_model=None if draft is None else draft.model,
            sampler=wanted.sampler,
            logits_processors=[_with_known(wanted.known, p) for p in wanted.processors]
            if reused
            else wanted.processors,
            prompt_cache=cache,
            **options,
        )

    def _end(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running, self._uid, self._kv, self._seen = None, -1, [], []

    def remove(self, uids: list[int], *, keep: bool = False) -> dict[int, tuple[KV, list[int]]]:
        """Take sequences out; the one at work stops where it is (its cache is ahead of its tokens and not kept)."""
        del keep
        self._waiting = deque(item for item in self._waiting if item[0] not in uids)
        if self._uid in uids:
            self._end()
        return {}

    def extract(self, uid: int) -> tuple[KV, list[int]] | None:
        """Nothing can be taken from a generator that is at work."""
        del uid
        return None

    def close(self) -> None:
        """Stop what runs."""
        self._end()
        self._waiting.clear()


def _with_known(known: list[int], processor: Callable[[mx.array, mx.array], mx.array]) -> Callable[..., mx.array]:
    """Show a processor the tokens of the kept prefix too, which ``stream_generate`` does not know of."""
    prefix = mx.array(known, mx.uint32)
    return lambda tokens, logits: processor(mx.concatenate([prefix, tokens.astype(mx.uint32)]), logits)


def kv_view(kept: KV, tokens: int) -> KV:
    """Return the first ``tokens`` tokens of a plain KV cache, leaving the original as it is."""
    cut = []
    for layer in kept:
        view: Any = kv.KVCache()  # type: ignore[no-untyped-call]
        # New array objects: an update in place must not reach the original.
        view.keys, view.values = layer.keys[..., :tokens, :], layer.values[..., :tokens, :]
        view.offset = tokens
        cut.append(view)
    return cut


def kv_copy(kept: KV) -> KV:
    """Return a KV cache of any kind that can be changed without changing the original."""
    return copy.deepcopy(kept)


def kv_detach(kept: KV) -> int:
    """Start computing a cache cut out of a batch, so that it does not keep the batch alive; return its bytes."""
    mx.async_eval([layer.state for layer in kept])  # type: ignore[no-untyped-call]
    return int(sum(layer.nbytes for layer in kept))


def kv_save(path: Path, kept: KV) -> None:
    """Write a KV cache to a safetensors file."""
    kv.save_prompt_cache(str(path), kept)


def kv_load(path: Path) -> KV:
    """Read a KV cache from a safetensors file."""
    found: KV = kv.load_prompt_cache(str(path))  # type: ignore[no-untyped-call]
    return found


def embed(loaded: Loaded, rows: list[list[int]], pooling: str) -> list[list[float]]:
    """Return one unit vector a row: the hidden states pooled over the row's tokens.

    Right padding is exact for causal models, as no token sees what follows it.
    """
    longest = max(map(len, rows))
    padded = mx.array([row + [0] * (longest - len(row)) for row in rows])
    hidden = loaded.model.model(padded).astype(mx.float32)
    lengths = mx.array([len(row) for row in rows])
    if pooling == "mean":
        mask = (mx.arange(longest)[None, :] < lengths[:, None]).astype(mx.float32)[..., None]
        pooled = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    else:
        at = lengths - 1 if pooling == "last" else mx.zeros_like(lengths)
        pooled = hidden[mx.arange(len(rows)), at]
    units = pooled / mx.maximum(mx.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    mx.eval(units)
    vectors: list[list[float]] = units.tolist()
    return vectors
