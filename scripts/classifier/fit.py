"""Features to columns, logistic regression by scikit-learn, and the weights as a small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from app.route import features as f

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

LEXICON = Path(__file__).with_name("lexicon.txt")
COLUMNS = f.ROWS + f.SKELETON + f.SHAPE


def lexicon() -> f.Lexicon:
    """Return the compiled lexicon; of two lines with the same entry the earlier one holds.

    Raises:
        ValueError: a line names no known class, or holds an entry of more than three words.
    """
    entries: dict[int, int] = {}
    for line in LEXICON.read_text("utf-8").splitlines():
        group, colon, rest = line.partition(":")
        if colon and not line.startswith("#"):
            for entry in rest.split(","):
                entries.setdefault(f.entry_key(entry.strip()), f.CLASSES.index(group))
    return f.build_lexicon(entries)


def matrix(prompts: Iterable[str], words: f.Lexicon) -> sparse.csr_matrix:
    """Return one sparse row a prompt; the columns are the rows, the skeleton, the shape and the numbers."""
    starts, columns, values = [0], [], []
    for prompt in prompts:
        _, found = f.extract(f.clip(prompt), words)
        column, value = row(found)
        columns.append(column)
        values.append(value)
        starts.append(starts[-1] + len(column))
    shape = (len(starts) - 1, COLUMNS)
    made = sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=shape)
    made.sum_duplicates()
    return made


def row(found: f.Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the columns and the values of one text's features."""
    used = np.flatnonzero(found.shape)
    column = np.concatenate((found.rows, found.skeleton + f.ROWS, used + f.ROWS + f.SKELETON))
    value = np.concatenate((
        f.row_values(len(found.rows)),
        f.skeleton_values(len(found.skeleton)),
        found.shape[used],
    ))  # fmt: skip
    return column, value


def fit(
    made: sparse.csr_matrix, labels: Sequence[float], weights: Sequence[float] | None = None, strength: float = 1.0
) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression and, last, its bias.

    A label between 0 and 1 counts as that share of a positive example. liblinear's dual coordinate descent visits the
    rows in a fixed order on one thread, so that a second run gives the same bits.
    """
    label = np.asarray(labels, float)
    weight = np.ones(len(label)) if weights is None else np.asarray(weights, float)
    soft = (label > 0) & (label < 1)
    rows = sparse.vstack((made, made[soft])).tocsr()
    target = np.concatenate(((label > 0).astype(int), np.zeros(int(soft.sum()), int)))
    share = np.concatenate((np.where(soft, weight * label, weight), (weight * (1 - label))[soft]))
    model = LogisticRegression(
        C=strength, solver="liblinear", dual=True, max_iter=1000, tol=1e-2, random_state=0, intercept_scaling=4.0
    )
    model.fit(rows, target, share)
    return np.concatenate((model.coef_[0], model.intercept_))


def score(made: sparse.csr_matrix, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log odds of every row."""
    result: NDArray[np.float64] = made @ coefficients[:-1] + coefficients[-1]
    return result
