"""Features to columns, logistic regression by scikit-learn, and the weights as a small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from app.route import features as f
from app.route import packed

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
    phrases: set[tuple[int, int]] = set()
    for line in LEXICON.read_text("utf-8").splitlines():
        group, colon, rest = line.partition(":")
        if colon and not line.startswith("#"):
            for entry in rest.split(","):
                key, *parts = f.entry_keys(entry.strip())
                entries.setdefault(key, f.CLASSES.index(group))
                if parts:
                    phrases.add((parts[0], parts[1]))
    return f.build_lexicon(entries, phrases)


def matrix(prompts: Iterable[str], words: f.Lexicon) -> sparse.csr_matrix:
    """Return one sparse row a prompt; the columns are the rows, the skeleton, the shape and the numbers."""
    starts, columns, values = [0], [], []
    for prompt in prompts:
        found = f.extract(f.clip(prompt), words)
        column, value = row(found.rows(), found.skeleton, found.neighbours())
        columns.append(column)
        values.append(value)
        starts.append(starts[-1] + len(column))
    shape = (len(starts) - 1, COLUMNS)
    made = sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=shape)
    made.sum_duplicates()
    return made


def row(
    rows: Sequence[int], skeleton: Sequence[int], shape: Sequence[tuple[int, float]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the columns and the values of one text's features, whose columns in each table are given."""
    used = [at + f.ROWS + f.SKELETON for at, _ in shape]
    column = np.array([*rows, *(at + f.ROWS for at in skeleton), *used], np.int64)
    value = np.full(len(column), f.row_value(len(rows)))
    value[len(rows) :] = f.class_value(len(skeleton))
    value[len(rows) : len(rows) + f.N_SIZES] = 1.0
    value[len(column) - len(used) :] = [each for _, each in shape]
    return column, value


def dense(table: packed.Table) -> NDArray[np.float64]:
    """Return the weights of a table, a column a head."""
    steps = np.frombuffer(table.raw, np.uint8).reshape(-1, packed.HEADS).astype(float) - packed.ZERO
    return steps * np.array(table.steps)


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
