"""What a ledger knows: samples of parity as labels for the head of outcomes, and that head moved towards them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from classifier import fit
from scipy import sparse
from scipy.optimize import minimize

from app.ledger.db import Database, address

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PARTS = 5
STRENGTH = 0.05
"""Inverse regularisation of the change: some hundred labels move the columns that they agree on, and no others."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of a ledger.

    Attributes:
        made: one row a sample, in the model's columns.
        fails: 1 where the weaker model's answer lost, 0 where it was good enough.
        math: whether the classifier took the prompt for a calculation, which has a head of its own.
        left_out: samples whose features were made with another lexicon.
    """

    made: sparse.csr_matrix
    fails: NDArray[np.float64]
    math: NDArray[np.bool_]
    left_out: int


def read(url: str, layout: str) -> Labelled:
    """Read the labels.

    Args:
        url: as DATABASE_URL, or the path of an SQLite file.
        layout: of the features that are of use.

    Raises:
        DatabaseUnavailableError: it cannot be read.
        ValueError: the address is none, or there is no label of use.
    """
    rows = asyncio.run(_rows(url if "://" in url else f"sqlite:///{url}"))
    good = [row for row in rows if row["layout"] == layout]
    if not good:
        raise ValueError(f"{url} holds no label of use: {len(rows)} labels, none made with this lexicon")
    fails = np.array([row["difference"] < 0 for row in good], float)
    math = np.array([row["kind"] == "math" for row in good])
    return Labelled(_matrix([orjson.loads(row["features"]) for row in good]), fails, math, len(rows) - len(good))


async def _rows(url: str) -> list[dict[str, Any]]:
    from sqlalchemy import select

    from app.ledger.tables.parity import router_labels

    found = address(url, "")
    if found is None:
        raise ValueError("DATABASE_URL=off has no labels")
    database = Database(found)
    try:
        await database.start()
        async with database.connect() as connection:
            ordered = select(router_labels).order_by(router_labels.c.id)
            return [dict(row) for row in (await connection.execute(ordered)).mappings()]
    finally:
        await database.close()


def _matrix(found: list[dict[str, Any]]) -> sparse.csr_matrix:
    rows = [fit.row(each["rows"], each["skeleton"], each["shape"]) for each in found]
    starts = np.cumsum([0, *(len(column) for column, _ in rows)])
    columns, values = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    made = sparse.csr_matrix((values, columns, starts), shape=(len(rows), fit.COLUMNS))
    made.sum_duplicates()
    return made


def moved(head: NDArray[np.float64], made: sparse.csr_matrix, fails: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a head's coefficients, bias last, moved towards labels: logistic regression that starts from the head.

    How often the weak model fails is not learnt, only on what: complexity is a place among the prompts of one's own
    traffic, so that their mean stays where it was.
    """
    start = fit.score(made, head)
    sign = 2 * fails - 1
    rows = sparse.hstack((made, np.ones((made.shape[0], 1)))).tocsr()

    def loss(change: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (start + rows @ change)
        pull = -sign / (1 + np.exp(np.clip(margin, -700, 700)))
        held = np.append(change[:-1], 0.0)  # the bias may be anything
        total = np.logaddexp(0, -margin).sum() + held @ held / (2 * STRENGTH)
        return float(total), np.asarray(rows.T @ pull + held / STRENGTH)

    found = minimize(loss, np.zeros(fit.COLUMNS + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    change = np.append(found.x[:-1], -float((made @ found.x[:-1]).mean()))
    return np.asarray(head + change)


def held_out(head: NDArray[np.float64], made: sparse.csr_matrix, fails: NDArray[np.float64]) -> tuple[float, float]:
    """Return how well failures are ordered before and after (area under the curve), each fifth judged by the others.

    Raises:
        ValueError: there are failures only, or none.
    """
    from sklearn.metrics import roc_auc_score

    part = np.arange(len(fails)) % _PARTS
    after = np.zeros(len(fails))
    for number in range(_PARTS):
        outside = part != number
        after[~outside] = fit.score(made[~outside], moved(head, made[outside], fails[outside]))
    return float(roc_auc_score(fails, fit.score(made, head))), float(roc_auc_score(fails, after))
