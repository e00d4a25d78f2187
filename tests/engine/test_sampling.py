from __future__ import annotations

import dataclasses

import mlx.core as mx
import numpy as np
import pytest

from app.engine.sampling import Guard, Sampler, Sampling, choose, guarded, make_processor

LOGPROBS = mx.log(mx.array([[0.5, 0.25, 0.15, 0.07, 0.03]]))


def kept(how: Sampling, draws: int = 400) -> set[int]:
    """Return the tokens that are drawn at all, by many samplers at once."""
    samplers = [Sampler(dataclasses.replace(how, seed=seed)) for seed in range(draws)]
    return set(np.array(choose(mx.repeat(LOGPROBS, draws, axis=0), samplers)).tolist())


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (Sampling(top_k=2), {0, 1}),
        (Sampling(top_k=999_999), {0, 1, 2, 3}),
        (Sampling(top_p=0.7), {0, 1}),
        (Sampling(top_p=0.76), {0, 1, 2}),
        (Sampling(top_p=0.0), {0}),
        (Sampling(min_p=0.29), {0, 1, 2}),
        (Sampling(min_p=1.0), {0}),
        (Sampling(temperature=0.5, top_p=0.7), {0}),
        (Sampling(), {0, 1, 2, 3, 4}),
    ],
)
def test_what_may_be_drawn(how: Sampling, wanted: set[int]) -> None:
    assert kept(how) == wanted


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    sampler, same = (Sampler(Sampling(seed=5)) for _ in range(2))
    drawn = [choose(LOGPROBS, [sampler]).item() for _ in range(2000)]
    assert drawn[:50] == [choose(LOGPROBS, [same]).item() for _ in range(50)]
    shares = np.bincount(np.array(drawn), minlength=5) / 2000
    assert shares == pytest.approx([0.5, 0.25, 0.15, 0.07, 0.03], abs=0.04)


def test_each_row_is_drawn_as_if_alone() -> None:
    hows = [
        Sampling(seed=1),
        Sampling(temperature=0),
        Sampling(seed=2, top_p=0.7),
        Sampling(seed=3, top_k=2, temperature=3.0),
        Sampling(seed=4, top_p=0.7),
        Sampling(seed=5, min_p=0.2),
    ]
    logits = mx.random.normal((len(hows), 50), key=mx.random.key(1))
    together, alone = ([Sampler(how) for how in hows] for _ in range(2))
    for _ in range(20):
        drawn = choose(logits, together).tolist()
        assert drawn == [choose(logits[at : at + 1], [each]).item() for at, each in enumerate(alone)]


def test_temperature_zero_is_the_likeliest() -> None:
    assert choose(LOGPROBS, [Sampler(Sampling(temperature=0, top_k=3))]).tolist() == [0]


def test_penalties_count_the_answer_and_not_the_prompt() -> None:
    process = make_processor(Sampling(presence=1.0, frequency=0.5), 2, 5)
    assert process is not None
    found = np.array(process(mx.array([4, 4, 0, 0, 1]), mx.zeros((1, 5))))[0]
    assert found.tolist() == [-2.0, -1.5, 0, 0, 0]


def test_repetition_counts_both_and_a_bias_is_added() -> None:
    process = make_processor(Sampling(repetition=2.0, bias=((1, 3.0), (10**9, 5.0))), 1, 3)
    assert process is not None
    found = np.array(process(mx.array([0, 2]), mx.array([[4.0, 1.0, -1.0]])))[0]
    assert found.tolist() == [2.0, 4.0, -2.0]
    assert make_processor(Sampling(), 0, 3) is None


def test_a_failing_processor_spoils_its_own_sequence_only() -> None:
    guard = Guard()

    def broken(_: mx.array, __: mx.array) -> mx.array:
        raise ValueError("bad")

    logits = mx.zeros((1, 3))
    assert guarded(broken, guard)(mx.array([1]), logits) is logits
    assert isinstance(guard.error, ValueError)
