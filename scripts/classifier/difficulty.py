"""The two difficulty heads: what weak models fail on, and how many steps a calculation takes; then 1 to 10."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from classifier import data, fit

from app.route import classify as judge
from app.route import features as f

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

ANCHORS = Path(__file__).with_name("anchors.txt")
ANCHOR_WEIGHT = 10.0
OUTCOME_STRENGTH, STEP_STRENGTH = 0.2, 0.1
"""Inverse regularisation: outcomes and step counts are noisy, so it is far stronger than for the kinds."""

HELPED = {(True, False): 0.0, (True, True): 0.1, (False, False): 0.5, (False, True): 1.0}
"""Label by (weak right, strong right): where both are right or both miss, a stronger model gains nothing."""

PRIOR = {"science": 0.3, "proof": 0.8, "design": 0.6}
"""Added for word classes that examinations under-report: open proofs and designs have no multiple-choice outcome."""

MATH = judge.KINDS.index("math")


def anchors() -> list[data.Outcome]:
    """Return the prompts with an assumed difficulty."""
    rows = []
    for line in ANCHORS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            chance, prompt = line.split("|", 1)
            rows.append(data.Outcome(prompt, float(chance), ANCHOR_WEIGHT, "anchors", "anchors"))
    return rows


def label(row: data.Outcome) -> float:
    """Return the label: of a pair, how far the stronger model would have helped, by :data:`HELPED`."""
    if row.weak is None or row.strong is None:
        return row.fails
    return HELPED[row.weak > 0, row.strong > 0]


def heads(made: sparse.csr_matrix, rows: list[data.Outcome]) -> NDArray[np.float64]:
    """Return the coefficients of both heads, one column each.

    Single words are kept from the head of outcomes: within examinations they name the subject, and what is learnt of
    a subject does not carry over to another. Rows of steps train a head of their own: their level tells of no other.
    """
    stepped = np.array([row.group == "gsm8k" for row in rows])
    anchor = np.array([row.source == "anchors" for row in rows])
    return np.column_stack((
        _head(made, rows, np.flatnonzero(~stepped), f.ROWS, OUTCOME_STRENGTH) + prior(),
        _head(made, rows, np.flatnonzero(stepped | anchor), 0, STEP_STRENGTH) + prior(),
    ))  # fmt: skip


def _head(
    made: sparse.csr_matrix, rows: list[data.Outcome], at: NDArray[np.intp], first: int, strength: float
) -> NDArray[np.float64]:
    """Return a head trained on some rows and on the columns from ``first`` on; zeros where nothing is to be learnt."""
    labels = [label(rows[row]) for row in at]
    if len({value > 0 for value in labels}) + any(0 < value < 1 for value in labels) < 2:  # noqa: PLR2004 (classes)
        return np.zeros(fit.COLUMNS + 1)
    learnt = fit.fit(made[at][:, first:], labels, [rows[row].weight for row in at], strength)
    return np.concatenate((np.zeros(first), learnt))


def prior() -> NDArray[np.float64]:
    """Return the length (in steps of root two) and word classes as coefficients of the same columns."""
    added = np.zeros(fit.COLUMNS + 1)
    first = f.ROWS + f.SIZES
    added[first : first + 24] = judge.LENGTH_SHARE / 2 * np.arange(24)
    for name, share in PRIOR.items():
        added[f.ROWS + f.CLASSES.index(name)] = share
    return added


def kinds(made: sparse.csr_matrix, columns: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the number of each row's kind, given the coefficients of the kinds, one column each."""
    code, others = fit.score(made, columns[:, 0]), made @ columns[:-1, 1:] + columns[-1, 1:]
    number: NDArray[np.intp] = np.where(code > 0, 0, 1 + others.argmax(axis=1))
    return number


def blend(made: sparse.csr_matrix, both: NDArray[np.float64], kind: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the difficulty of every row, as :func:`app.route.classify.hardness` does for one."""
    share = np.array([judge.KIND_SHARE[name] for name in judge.KINDS])
    hard, steps = (fit.score(made, both[:, column]) for column in (0, 1))
    blended: NDArray[np.float64] = np.where(kind == MATH, steps, hard) + share[kind]
    return blended


def apgr(score: NDArray[np.float64], weak: NDArray[np.float64], strong: NDArray[np.float64]) -> float:
    """Return the average gap recovered over ten bins of the share of strong calls (RouteLLM, arXiv 2406.18665)."""
    order = np.lexsort((np.arange(len(score)) * 7919 % len(score), -score))
    gain = np.concatenate(((0.0,), np.cumsum((strong - weak)[order])))
    at = np.linspace(0, len(score), 11).round().astype(int)
    return float(np.trapezoid(gain[at] / gain[-1], np.linspace(0, 1, 11)))


SHARES = (0.0011, 0.0830, 0.2181, 0.4256, 0.5411, 0.6288, 0.8110, 0.9042, 0.9468)
"""Share of the reference traffic at or below complexity 1 to 9: mostly examinations, so the cuts stand
where everyday asks come to 1 to 4 and open proofs and designs to 7 and above."""


def edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nine cuts that turn a score into 1 to 10: percentiles of the reference traffic."""
    return np.quantile(scores, SHARES)
