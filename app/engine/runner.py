"""One loaded model at work on the MLX thread: its batch, its kept prefixes, the jobs that wait and run."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine import adapter
from app.engine.batch import make_batch
from app.engine.detokenize import TokenBytes
from app.engine.errors import CancelledLoadError, EngineError
from app.engine.grammar import Vocabulary
from app.engine.jobs import failure
from app.engine.prefix import PrefixIndex, common
from app.engine.sequence import Sequence
from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.engine.adapter import KV, Loaded
    from app.engine.batch import Batch
    from app.engine.jobs import Channel, Delta, Job
    from app.engine.prefix import Ids
    from app.engine.rows import Token

log = logging.getLogger("sluice.engine")
Out = list[tuple["Channel", "Delta"]]
_GROWTH_TOKENS = 1024  # of an answer's limit, what is reserved in advance; most answers are shorter
_WORTH_SHARING = 128  # tokens of a prompt at work from which on it is waited for or copied
_WINDOW_S = 10.0  # seconds over which the rates of ``stats`` are taken


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a runner may take: sequences, prompt tokens a step, bytes of KV caches and of kept prefixes."""

    batch: int = 32
    prefill_batch: int = 8
    prefill_step: int = 256
    prefix_bytes: int = 0
    prefix_disk_bytes: int = 0
    draft_tokens: int = 3


class Rate:
    """Events a second over the last seconds, in buckets of one second."""

    def __init__(self) -> None:
        self.total = 0
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def add(self, count: int) -> None:
        """Count events now."""
        self.total += count
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.total))
            while len(self._marks) > 1 and now - self._marks[0][0] > _WINDOW_S:
                self._marks.popleft()

    def per_s(self) -> float:
        """Return the rate since the oldest mark."""
        since, before = self._marks[0]
        elapsed = time.monotonic() - since
        return (self.total - before) / elapsed if 0 < elapsed <= 2 * _WINDOW_S else 0.0


class Runner:
    """Owns a loaded model; every method runs on the MLX thread."""

    def __init__(self, loaded: Loaded, limits: Limits, store: Any = None, draft: Loaded | None = None) -> None:
        self.loaded = loaded
        self.table = TokenBytes(loaded.tokenizer)
        self.kv_room = 0
        self._limits, self._draft = limits, draft
        self._vocabulary: Vocabulary | None = None
        self._batch = self._make_batch()
        self._waiting: deque[Job] = deque()
        self._live: dict[int, Sequence] = {}
        self._followers: dict[Job, list[Sequence]] = {}
        self._prompts: dict[int, Ids] = {}
        self._heirs: dict[int, list[Sequence]] = {}  # those that wait until a prompt like theirs has been read
        self.prefixes = PrefixIndex(
            limits.prefix_bytes, cuttable=loaded.cuttable, store=store, disk_budget=limits.prefix_disk_bytes
        )
        self.prompt_rate, self.decode_rate = Rate(), Rate()
        self.steps = self.rebuilds = 0

    def _make_batch(self) -> Batch:
        lim = self._limits
        return make_batch(
            self.loaded,
            batch=lim.batch,
            prefill_batch=lim.prefill_batch,
            prefill_step=lim.prefill_step,
            draft=self._draft,
            draft_tokens=lim.draft_tokens,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens for grammars, made at the first use."""
        if self._vocabulary is None:
            tokenizer = self.loaded.tokenizer._tokenizer  # noqa: SLF001 - llguidance wants the inner one
            self._vocabulary = Vocabulary(tokenizer, self.loaded.vocabulary, self.loaded.eos)
        return self._vocabulary

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._live or self._waiting)

    @property
    def running(self) -> int:
        """Sequences at work."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Jobs that wait for room in the KV budget."""
        return len(self._waiting)

    def submit(self, *jobs: Job) -> None:
        """Queue jobs."""
        self._waiting += jobs

    def cancel(self, *jobs: Job) -> None:
        """Stop all choices of jobs that may still run; their channels get nothing more."""
        for job in jobs:
            if job in self._waiting:
                self._waiting.remove(job)
            self._followers.pop(job, None)
        for uid, heirs in self._heirs.items():
            self._heirs[uid] = [heir for heir in heirs if heir.job not in jobs]
        uids = [uid for uid, sequence in self._live.items() if sequence.job in jobs]
        if uids:
            self._batch.remove(uids)
            for uid in uids:
                self._forget(uid)

    def step(self, out: Out) -> None:
        """Do one step for all sequences and add the news to ``out``; an error fails the running jobs alone."""
        try:
            self._step(out)
        except Exception as error:
            log.exception("%s: a step failed; its batch is rebuilt", self.loaded.name)
            self._rebuild(out, EngineError(f"generation failed: {error}", status=500, code="generation_failed"))

    def _step(self, out: Out) -> None:
        self._admit(out)
        tokens, begun, read = self._batch.step()
        self.steps += 1
        self.prompt_rate.add(read)
        for uid in begun:
            self._prompt_done(uid)
        self.decode_rate.add(len(tokens))
        for token in tokens:
            self._advance(token, out)

    def _admit(self, out: Out) -> None:
        while self._waiting and self._fits(self._waiting[0]):
            job = self._waiting.popleft()
            try:
                first, *others = [self._sequence(job, choice) for choice in range(job.choices)]
            except Exception as error:  # noqa: BLE001 - one job's fault must not end the others
                out.append((job.channel, failure(job.first, _told(error))))
                continue
            if others:
                self._followers[job] = others
            self._insert(first)

    def _fits(self, job: Job) -> bool:
        if not self._live or not self.kv_room:
            return True
        return self._reserved() + _tokens_of(job) * self.loaded.folder.kv_bytes_per_token <= self.kv_room

    def _reserved(self) -> int:
        jobs = {id(seq.job): seq.job for seq in self._all()}
        return sum(map(_tokens_of, jobs.values())) * self.loaded.folder.kv_bytes_per_token

    def _sequence(self, job: Job, choice: int) -> Sequence:
        vocabulary = self.vocabulary if job.grammar is not None else None
        return Sequence(job, choice, self.table, vocabulary, self.loaded.vocabulary)

    def _insert(self, sequence: Sequence) -> None:
        prompt = sequence.job.prompt
        hit = self.prefixes.find(prompt)
        donor = self._donor(prompt, 0 if hit is None else hit.tokens)
        if donor in self._heirs:
            self._heirs[donor].append(sequence)
            return
        if donor is not None:
            self._share(donor)
            hit = self.prefixes.find(prompt)
        kept = None
        if hit is not None:
            sequence.cached = hit.tokens
            kept = adapter.kv_view(hit.value, hit.tokens) if self.loaded.cuttable else adapter.kv_copy(hit.value)
        self._start(sequence, sequence.cached, kept)

    def _donor(self, prompt: list[int], known: int) -> int | None:
        """Return the sequence at work whose prompt begins most like this one, if that is worth more than what is known.

        Requests that arrive together often share their instructions: one reads these, the others take them over. For
        one that still reads there is no waiting longer than it saves.
        """
        room = self._limits.prefix_bytes // max(1, self.loaded.folder.kv_bytes_per_token)
        if not self.loaded.cuttable or not room:
            return None
        wanted, best, most = np.asarray(prompt[:-1], dtype=np.int32), None, _WORTH_SHARING - 1
        for uid, ids in self._prompts.items():
            shared = common(ids, wanted)
            waits = len(ids) - shared if uid in self._heirs else 0
            if shared - known > max(most, waits) and len(ids) <= room:
                best, most = uid, shared - known
        return best

    def _share(self, uid: int) -> None:
        """Keep what a sequence at work has read and written so far."""
        found = self._batch.extract(uid)
        if found is not None:
            self._keep(*found)

    def _start(self, sequence: Sequence, known: int, kept: KV | None) -> None:
        uid = self._batch.insert(sequence.insert(known, kept))
        self._live[uid], self._heirs[uid] = sequence, []
        self._prompts[uid] = np.asarray(sequence.job.prompt, dtype=np.int32)

    def _prompt_done(self, uid: int) -> None:
        """Share a prompt that has just been read: with the job's other choices, and with later prompts."""
        sequence = self._live.get(uid)
        if sequence is None:
            return
        heirs = self._heirs.pop(uid, [])
        if heirs:
            self._share(uid)
        for heir in heirs:
            self._insert(heir)
        others = self._followers.pop(sequence.job, [])
        if not others and (self.loaded.cuttable or not self._limits.prefix_bytes):
            return
        found = self._batch.extract(uid)
        if found is not None and not self.loaded.cuttable:
            self._keep(*found)
        for other in others:
            if found is None or not self.loaded.cuttable:
                self._insert(other)
            else:
                shared = len(sequence.job.prompt) - 1
                self._start(other, shared, adapter.kv_view(found[0], shared))

    def _advance(self, token: Token, out: Out) -> None:
        sequence = self._live.get(token.uid)
        if sequence is None:
            return
        try:
            delta = sequence.advance(token)
        except Exception as error:
            log.exception("%s: a sequence failed", self.loaded.name)
            delta = failure(sequence.choice, EngineError(f"the answer failed: {error}", status=500))
        if delta is not None:
            out.append((sequence.job.channel, delta))
        ended = delta is not None and (delta.finish is not None or delta.error is not None)
        if token.finish is None and not ended:
            return
        self._leave(token, sequence)
        self._forget(token.uid)

    def _forget(self, uid: int) -> None:
        """Drop a sequence; those that waited for its prompt read theirs themselves."""
        del self._live[uid], self._prompts[uid]
        for heir in self._heirs.pop(uid, []):
            self._insert(heir)

    def _leave(self, token: Token, sequence: Sequence) -> None:
        """Take an ended sequence out and keep what it has read and written, as the next turn will begin with it."""
        keep = self._limits.prefix_bytes > 0 and sequence.guard.error is None
        if token.finish is None:
            removed = self._batch.remove([token.uid], keep=keep)
            found = removed.get(token.uid)
        else:
            found = (token.kept, token.all_tokens) if token.kept is not None and token.all_tokens else None
        if keep and found is not None:
            self._keep(*found)

    def _keep(self, kept: KV, tokens: list[int]) -> None:
        if len(tokens) * self.loaded.folder.kv_bytes_per_token <= self._limits.prefix_bytes:
            self.prefixes.add(tokens, kept, adapter.kv_detach(kept))

    def _all(self) -> Iterator[Sequence]:
        """Yield all sequences that are not through: those at work, and those that wait for a prompt to be read."""
        yield from self._live.values()
        for group in (*self._followers.values(), *self._heirs.values()):
            yield from group

    def _give_up(self, out: Out, error: EngineError) -> None:
        """Tell every sequence that it failed, and forget all of them and what was read."""
        out += [(sequence.job.channel, failure(sequence.choice, error)) for sequence in self._all()]
        for kept in (self._live, self._followers, self._prompts, self._heirs, self.prefixes):
            kept.clear()
        self._batch.close()

    def _rebuild(self, out: Out, error: EngineError) -> None:
        self._give_up(out, error)
        self._batch = self._make_batch()
        self.rebuilds += 1

    def close(self, out: Out) -> None:
        """End everything; the runner holds no reference to the model afterwards."""
        error = CancelledLoadError("the model was unloaded")
        out += [(job.channel, failure(job.first, error)) for job in self._waiting]
        self._waiting.clear()
        self._give_up(out, error)
        self._draft = None
        del self._batch, self.loaded, self._vocabulary, self.table


def _tokens_of(job: Job) -> int:
    return job.choices * (len(job.prompt) + min(job.max_tokens, _GROWTH_TOKENS))


def _told(error: Exception) -> SluiceError:
    if isinstance(error, SluiceError):
        return error
    return EngineError(f"the request cannot be begun: {error}", status=500)
