"""The difficulty head: what weak models fail on, blended with length and a hand-made prior, then cut into 1 to 10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from app.route import features as f
from numpy.typing import NDArray
from scipy import sparse

from classifier import data, fit

ANCHORS = Path(__file__).with_name("anchors.txt")
ANCHOR_WEIGHT = 6.0
STRENGTH = 0.05
"""Inverse regularisation of the difficulty head: outcomes are noisy, so it is far stronger than for the kinds."""

LENGTH_SHARE, PRIOR_SHARE = 0.25, 0.25
"""Log odds added for a doubling of the length, and for each unit of the prior below."""

PRIOR = {"science": 1.0, "proof": 1.0, "design": 1.0, "constraint": 0.5, "math": 0.3, "analysis": 0.3, "codeverb": 0.3,
         "greeting": -1.0, "easy": -0.6, "translate": -0.3}  # fmt: skip
"""What a person would say of these word classes before seeing any outcome."""


def anchors() -> list[data.Outcome]:
    """Return the prompts with an assumed difficulty."""
    rows = []
    for line in ANCHORS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            chance, prompt = line.split("|", 1)
            rows.append(data.Outcome(prompt, float(chance), ANCHOR_WEIGHT, "anchors", "anchors"))
    return rows


def head(made: sparse.csr_matrix, rows: list[data.Outcome]) -> NDArray[np.float64]:
    """Return the coefficients of the difficulty head."""
    fitted = fit.fit(made, [row.fails for row in rows], [row.weight for row in rows], STRENGTH)
    return fitted + prior()


def prior() -> NDArray[np.float64]:
    """Return length and word classes as coefficients of the same columns."""
    added = np.zeros(fit.COLUMNS + 1)
    for name, share in PRIOR.items():
        added[f.ROWS + f.CLASSES.index(name)] = PRIOR_SHARE * share
    numbers = f.ROWS + f.SKELETON + f.SHAPE
    added[numbers : numbers + 13] = LENGTH_SHARE * np.arange(13)
    return added


def apgr(score: NDArray[np.float64], weak: NDArray[np.float64], strong: NDArray[np.float64]) -> float:
    """Return the average performance gap recovered over ten bins of the share of strong calls (RouteLLM, 2406.18665)."""
    order = np.lexsort((np.arange(len(score)) * 7919 % len(score), -score))
    gain = np.concatenate(((0.0,), np.cumsum((strong - weak)[order])))
    at = np.linspace(0, len(score), 11).round().astype(int)
    return float(np.trapezoid(gain[at] / gain[-1], np.linspace(0, 1, 11)))


SHARES = (0.10, 0.22, 0.35, 0.48, 0.60, 0.71, 0.81, 0.89, 0.95)
"""Share of the reference traffic at or below complexity 1 to 9."""


def edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nine cuts that turn a score into 1 to 10: percentiles of the reference traffic."""
    return np.quantile(scores, SHARES)
