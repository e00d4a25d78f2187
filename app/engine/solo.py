"""One sequence after the other, by mlx-lm's (0.32) ``stream_generate``. Runs on the MLX thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm import stream_generate
from mlx_lm.models import cache as kv

from app.engine.rows import Insert, Step, Token
from app.engine.sampling import choose, guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine.adapter import KV, Loaded


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

    def step(self) -> Step:
        """Generate one token of the sequence at work; the first one includes its whole prompt."""
        begun: list[int] = []
        read = 0
        if self._running is None:
            if not self._waiting:
                return Step([], [], 0)
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
        return Step([token], begun, read)

    def _begin(self, uid: int, wanted: Insert) -> None:
        # A grammar follows the tokens one by one and cannot take back what a draft model proposed in vain.
        draft = None if self._draft is None or wanted.processors or wanted.follower else self._draft
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
            sampler=lambda logprobs: choose(logprobs, [wanted.sampler] * logprobs.shape[0]),
            logits_processors=_processors(wanted, reused=reused),
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


def _processors(wanted: Insert, *, reused: bool) -> list[Callable[..., mx.array]]:
    found = [*wanted.processors]
    if wanted.follower is not None:
        found.append(guarded(wanted.follower, wanted.guard))
    return [_with_known(wanted.known, each) for each in found] if reused else found


def _with_known(known: list[int], processor: Callable[[mx.array, mx.array], mx.array]) -> Callable[..., mx.array]:
    """Show a processor the tokens of the kept prefix too, which ``stream_generate`` does not know of."""
    prefix = mx.array(known, mx.uint32)
    return lambda tokens, logits: processor(mx.concatenate([prefix, tokens.astype(mx.uint32)]), logits)
