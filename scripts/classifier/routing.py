"""What routing recovers of the gap between a weak and a strong model, by models that never saw the questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from classifier import difficulty
from sklearn.linear_model import Ridge

from app.route import classify as judge

if TYPE_CHECKING:
    from typing import Any

    from classifier import data
    from numpy.typing import NDArray
    from scipy import sparse

OWN = {"routellm_mmlu": 1500}
"""Labels of one's own that are tried, by source; 300 for any other."""
DRAWS = 8
OWN_RIDGE = 200.0
"""Regularisation of the own labels: within one benchmark "strong minus weak" is learnt better than "weak fails"."""

LOCAL = (
    ("Qwen2.5-7B-Instruct", "Meta-Llama-3.1-8B-Instruct"),
    ("Qwen2.5-7B-Instruct", "Qwen2-7B-Instruct"),
    ("Phi-3.5-mini-instruct", "Qwen2-7B-Instruct"),
    ("Qwen2.5-72B-Instruct", "Meta-Llama-3.1-70B-Instruct"),
)
"""Pairs of models one can host; the first one's answer is served where both agree."""
CLOUD = "gpt-4o-2024-08-06"


def examinations(made: sparse.csr_matrix, rows: list[data.Outcome], heads: NDArray[np.float64]) -> None:
    """Print the figures on the training pair's questions: left out at random, by whole subject, and with own labels."""
    at = np.flatnonzero([row.weak is not None for row in rows])
    if not len(at):
        return
    kind = difficulty.kinds(made, heads[:, : len(judge.KINDS)])
    weak, strong = scores([rows[row] for row in at])
    groups = sorted({row.group for row in rows})
    folds = {
        "questions left out at random, 5 folds": np.arange(len(rows)) * 7919 % 5,
        "whole subjects left out, 5 folds": np.array([groups.index(row.group) % 5 for row in rows]),
    }
    print(f"\nRouting by difficulty, {len(at):,} questions run on a weak and a strong model, APGR (random 0.5)")
    print(f"  {'prompt length alone':42s} {difficulty.apgr(length([rows[row] for row in at]), weak, strong):.3f}")
    for name, fold in folds.items():
        print(f"  {name:42s} {difficulty.apgr(_cross(made, rows, fold, kind)[at], weak, strong):.3f}")
    others = np.flatnonzero([row.weak is None for row in rows])
    blind = difficulty.heads(made[others], [rows[row] for row in others])
    base = difficulty.blend(made[at], blind, kind[at])
    print(f"  {'without any of these questions':42s} {difficulty.apgr(base, weak, strong):.3f}")
    own([rows[row] for row in at], made[at], base)


def outside(name: str, made: sparse.csr_matrix, rows: list[data.Outcome], heads: NDArray[np.float64]) -> None:
    """Print the figures of the trained heads on questions of another file."""
    count = len(judge.KINDS)
    base = difficulty.blend(made, heads[:, count:], difficulty.kinds(made, heads[:, :count]))
    weak, strong = scores(rows)
    print(f"\n{name}, {len(rows):,} questions, APGR (random 0.5)")
    print(f"  {'prompt length alone':42s} {difficulty.apgr(length(rows), weak, strong):.3f}")
    print(f"  {'the heads before rounding to 8 bits':42s} {difficulty.apgr(base, weak, strong):.3f}")
    own(rows, made, base)


def own(rows: list[data.Outcome], made: sparse.csr_matrix, base: NDArray[np.float64]) -> None:
    """Print the mean of several draws of own labels, judged on the questions not drawn."""
    size = OWN.get(rows[0].source, 300)
    if size * 2 > len(rows):
        return
    weak, strong = scores(rows)
    rng = np.random.default_rng(7)
    found = []
    for _ in range(DRAWS):
        drawn = np.zeros(len(rows), bool)
        drawn[rng.choice(len(rows), size, replace=False)] = True
        learnt = Ridge(OWN_RIDGE, solver="sparse_cg").fit(made[drawn], (strong - weak)[drawn]).predict(made)
        score = _standard(learnt) + 0.5 * _standard(base) + 0.5 * _standard(np.log2(length(rows)))
        found.append(difficulty.apgr(score[~drawn], weak[~drawn], strong[~drawn]))
    name = f"with {size:,} labels of one's own, {DRAWS} draws"
    print(f"  {name:42s} {np.mean(found):.3f} (from {min(found):.3f} to {max(found):.3f})")


def cascades(rows: list[dict[str, Any]]) -> None:
    """Print, for pairs of local models, how often they disagree and what asking the cloud only then recovers."""
    for source in sorted({row["source"] for row in rows}):
        print(f"\nCascade by agreement on {source}: two local models agree, or {CLOUD} is asked")
        for pair in LOCAL:
            mine = [row for row in rows if row["source"] == source and {*pair, CLOUD} <= row["outcomes"].keys()]
            _cascade(mine, pair)


def _cascade(rows: list[dict[str, Any]], pair: tuple[str, str]) -> None:
    first, second = ([row["answers"].get(name) for row in rows] for name in pair)
    agree = np.array([one is not None and one == two for one, two in zip(first, second, strict=True)])
    weak, strong = (np.array([row["outcomes"][name] for row in rows], float) for name in (pair[0], CLOUD))
    served = np.where(agree, weak, strong)
    gap = strong.mean() - weak.mean()
    recovered = f"recover {(served.mean() - weak.mean()) / gap:.1%} of the gap" if gap > 0 else "have no gap to recover"
    between = f"({weak.mean():.2f} to {strong.mean():.2f})"
    print(f"  {' + '.join(pair):52s} {(~agree).mean():.1%} cloud calls {recovered} {between}")


def scores(rows: list[data.Outcome]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the weak and the strong model scored."""
    return np.array([row.weak for row in rows], float), np.array([row.strong for row in rows], float)


def length(rows: list[data.Outcome]) -> NDArray[np.float64]:
    """Return the lengths of the prompts in characters."""
    return np.array([len(row.prompt) for row in rows], float)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    standard: NDArray[np.float64] = (values - values.mean()) / (values.std() or 1.0)
    return standard


def _cross(
    made: sparse.csr_matrix, rows: list[data.Outcome], fold: NDArray[np.intp], kind: NDArray[np.intp]
) -> NDArray[np.float64]:
    score = np.zeros(len(rows))
    for part in range(5):
        seen, held = np.flatnonzero(fold != part), fold == part
        both = difficulty.heads(made[seen], [rows[at] for at in seen])
        score[held] = difficulty.blend(made[held], both, kind[held])
    return score
