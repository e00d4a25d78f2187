"""Which prompts are read together, and how rows come and go while others run."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from app.engine.batch import MergedBatch, _oldest_and_its_likes_first, together
from app.engine.rows import Insert, Row
from app.engine.sampling import Guard, Sampler, Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from app.engine.adapter import Loaded


@pytest.fixture(scope="module")
def loaded(qwen: Path) -> Loaded:
    from app.engine import adapter
    from app.engine.weights import read_folder

    return adapter.load_now("q", read_folder(qwen))


def _insert(rest: list[int], tokens: int = 8, **more: Any) -> Insert:
    how = Sampling(temperature=more.pop("temperature", 0.0), seed=more.pop("seed", 1))
    return Insert([], rest, None, tokens, Sampler(how), Guard(), **more)


def _run(batch: MergedBatch, wanted: int) -> dict[int, list[int]]:
    """Step until so many sequences have ended, and return their tokens."""
    said: dict[int, list[int]] = {}
    ended = 0
    while ended < wanted:
        for token in batch.step().tokens:
            said.setdefault(token.uid, []).append(token.token)
            ended += token.finish is not None
    return said


@pytest.mark.parametrize(
    ("sizes", "affordable", "wanted"),
    [
        ([100] * 8, 1000, 8),  # quick: all
        ([100] * 8, 450, 4),  # as many as are affordable
        ([100, 100], 50, 1),  # slow: one, always
        ([50, 400, 50], 500, 1),  # padding the short one to the long one is not worth it
        ([0, 0, 0], 128, 3),  # all known already
    ],
)
def test_how_many_prompts_are_read_together(sizes: list[int], affordable: int, wanted: int) -> None:
    assert together(sizes, affordable) == wanted


def test_the_oldest_is_read_next_and_its_likes_with_it() -> None:
    lengths = {3: 40, 4: 400, 5: 91, 6: 44}
    waiting = deque(Row(uid, _insert([0] * length), []) for uid, length in lengths.items())
    _oldest_and_its_likes_first(waiting)
    assert [row.uid for row in waiting] == [3, 6, 5, 4]


def test_a_sequence_says_the_same_alone_and_among_others_that_come_and_go(loaded: Loaded) -> None:
    wanted = [
        _insert([(7 * n + k) % 700 + 20 for k in range(5 + 13 * n)], 6 + 5 * n, temperature=n % 2, seed=n)
        for n in range(7)
    ]
    alone = []
    for one in wanted:
        batch = MergedBatch(loaded, 4, 2, 128)
        batch.insert(one._replace(sampler=Sampler(one.sampler.how)))
        (said,) = _run(batch, 1).values()
        alone.append(said)
    batch = MergedBatch(loaded, 4, 2, 128)
    uids = [batch.insert(one) for one in wanted]
    together = _run(batch, 7)
    assert [together[uid] for uid in uids] == alone


def test_a_long_prompt_is_read_in_pieces_and_short_ones_in_between(loaded: Loaded) -> None:
    batch = MergedBatch(loaded, 8, 2, 128)
    long = batch.insert(_insert([25] * 3000, 2))
    first = batch.step()
    assert (first.tokens, first.begun, first.read) == ([], [], 128)
    short = batch.insert(_insert([30, 31, 32], 2))
    assert batch.step().begun == [short]
    steps = [batch.step() for _ in range(40)]
    assert [uid for step in steps for uid in step.begun] == [long]
    assert sum(step.read for step in steps) == 3000 - 1 - 128


def test_taken_out_whatever_the_stage(loaded: Loaded) -> None:
    batch = MergedBatch(loaded, 2, 2, 128)
    running = batch.insert(_insert([30, 31, 32], 50))
    assert batch.step().begun == [running]
    long, waiting, last = (batch.insert(_insert([40] * size, 3)) for size in (900, 20, 21))
    batch.step()
    kept = batch.remove([running, long, waiting], keep=True)
    assert list(kept) == [running]
    assert kept[running][1][:3] == [30, 31, 32]
    assert kept[running][0][0].offset == len(kept[running][1])
    assert list(_run(batch, 1)) == [last]


def test_of_one_whose_answer_is_one_token_the_cache_is_given_back(loaded: Loaded) -> None:
    batch = MergedBatch(loaded, 2, 2, 128)
    batch.insert(_insert([30, 31, 32], 1, logprobs=True))
    step = batch.step()
    (token,) = step.tokens
    assert (token.finish, token.all_tokens, token.kept[0].offset) == ("length", [30, 31, 32], 3)  # type: ignore[index]
    assert token.logprobs[token.token].item() == token.logprobs.max().item()
    assert batch.step().tokens == []
