"""The difficulty head: what weak models fail on, blended with length and word classes, then cut into 1 to 10."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from classifier import data, fit

from app.route import features as f

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

ANCHORS = Path(__file__).with_name("anchors.txt")
ANCHOR_WEIGHT = 10.0
STRENGTH = 0.05
"""Inverse regularisation of the difficulty head: outcomes are noisy, so it is far stronger than for the kinds."""

LENGTH_SHARE = 0.3
"""Log odds added for each doubling of the length: length alone orders grade-school sums better than any outcome."""

PRIOR = {"science": 0.3, "proof": 0.8, "design": 0.6}
"""Added for word classes that examinations under-report: open proofs and designs have no multiple-choice outcome."""

GAIN_SHARE = 0.75
"""Where a pair was run, how much of the label is "strong right, weak wrong" and not just "weak wrong"."""


def anchors() -> list[data.Outcome]:
    """Return the prompts with an assumed difficulty."""
    rows = []
    for line in ANCHORS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            chance, prompt = line.split("|", 1)
            rows.append(data.Outcome(prompt, float(chance), ANCHOR_WEIGHT, "anchors", "anchors"))
    return rows


def label(row: data.Outcome) -> float:
    """Return the difficulty label: of a pair, a question that both models miss counts half, as nothing is gained."""
    if row.weak is None or row.strong is None:
        return row.fails
    gain = 0.0 if row.weak else 1.0 if row.strong else 0.5
    return GAIN_SHARE * gain + (1 - GAIN_SHARE) * row.fails


def head(made: sparse.csr_matrix, rows: list[data.Outcome]) -> NDArray[np.float64]:
    """Return the coefficients of the difficulty head."""
    return fit.fit(made, [label(row) for row in rows], [row.weight for row in rows], STRENGTH) + prior()


def prior() -> NDArray[np.float64]:
    """Return length (in steps of root two) and word classes as coefficients of the same columns."""
    added = np.zeros(fit.COLUMNS + 1)
    first = f.ROWS + f.SIZES
    added[first : first + 24] = LENGTH_SHARE / 2 * np.arange(24)
    for name, share in PRIOR.items():
        added[f.ROWS + f.CLASSES.index(name)] = share
    return added


def apgr(score: NDArray[np.float64], weak: NDArray[np.float64], strong: NDArray[np.float64]) -> float:
    """Return the average gap recovered over ten bins of the share of strong calls (RouteLLM, arXiv 2406.18665)."""
    order = np.lexsort((np.arange(len(score)) * 7919 % len(score), -score))
    gain = np.concatenate(((0.0,), np.cumsum((strong - weak)[order])))
    at = np.linspace(0, len(score), 11).round().astype(int)
    return float(np.trapezoid(gain[at] / gain[-1], np.linspace(0, 1, 11)))


SHARES = (0.10, 0.22, 0.35, 0.48, 0.60, 0.71, 0.81, 0.89, 0.95)
"""Share of the reference traffic at or below complexity 1 to 9."""


def edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nine cuts that turn a score into 1 to 10: percentiles of the reference traffic."""
    return np.quantile(scores, SHARES)


def show(made: sparse.csr_matrix, rows: list[data.Outcome]) -> None:
    """Print what routing by difficulty recovers on the pair's questions, by models that never saw them."""
    pair = np.array([row.weak is not None for row in rows])
    if not pair.any():
        return
    weak = np.array([row.weak for row in rows if row.weak is not None])
    strong = np.array([row.strong for row in rows if row.strong is not None])
    length = np.array([float(len(row.prompt)) for row in rows])
    groups = sorted({row.group for row in rows})
    folds = {
        "prompt length alone": length,
        "left out at random, 5 folds": _cross(made, rows, np.arange(len(rows)) * 7919 % 5),
        "left out by subject, 5 folds": _cross(made, rows, np.array([groups.index(row.group) % 5 for row in rows])),
    }
    print(f"\nRouting by difficulty, {pair.sum():,} questions run on a weak and a strong model, APGR (random 0.5)")
    for name, score in folds.items():
        print(f"  {name:30s} {apgr(score[pair], weak, strong):.3f}")


def _cross(made: sparse.csr_matrix, rows: list[data.Outcome], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    score = np.zeros(len(rows))
    for part in range(5):
        seen = np.flatnonzero(fold != part)
        coefficients = head(made[seen], [rows[at] for at in seen])
        score[fold == part] = fit.score(made[fold == part], coefficients)
    return score
