"""Figures printed beside the weights: code intent by source and language, and what routing by difficulty recovers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from classifier import fit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classifier.generate import Row
    from scipy import sparse

KEYWORDS = (
    "code", "function", "implement", "class", "script", "program", "api", "debug", "algorithm", "python", "javascript",
    "typescript", "java", "sql", "html", "css", "react", "create", "build", "develop", "write", "fix", "refactor",
)  # fmt: skip
"""A plain keyword list of the usual kind; a prompt that holds any of them as a substring counts as code."""

Bools = NDArray[np.bool_]


def keyword_code(prompt: str) -> bool:
    """Return what the keyword baseline says."""
    lowered = prompt.lower()
    return any(word in lowered for word in KEYWORDS)


def prf(label: Bools, said: Bools) -> str:
    """Return F1, precision, recall and the share of false positives as text."""
    hit, false, missed = int((said & label).sum()), int((said & ~label).sum()), int((~said & label).sum())
    f1 = 2 * hit / max(2 * hit + false + missed, 1)
    precision, recall = hit / max(hit + false, 1), hit / max(hit + missed, 1)
    wrong = false / max(int((~label).sum()), 1)
    return f"F1 {f1:.3f} (P {precision:.3f} / R {recall:.3f})  false positives {wrong:.1%}  n={len(label)}"


def by_slice(rows: Sequence[Row], score: NDArray[np.float64], keys: Sequence[str], title: str) -> None:
    """Print one line for each value of a key, the model beside the keyword baseline."""
    label = np.array([row.code == 1 for row in rows])
    words = np.array([keyword_code(row.prompt) for row in rows])
    print(f"\n{title}")
    for key in ["all", *sorted(set(keys))]:
        at = np.array([key in {"all", mine} for mine in keys])
        print(f"  {key:20s} model    {prf(label[at], score[at] > 0)}")
        print(f"  {'':20s} keywords {prf(label[at], words[at])}")


SIBLINGS = {
    "routellm_mmlu": "mmlu",
    "MMLU_cs": "mmlu",
    "ru_alpaca_seed": "instruct",
    "self_instruct_seed": "instruct",
    "BELLE_eval": "instruct",
}
"""Sources that are translations of each other are held out together."""


def leave_one_source_out(
    made: sparse.csr_matrix, rows: Sequence[Row], weight: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """Return scores for the rows of each outside source, given by a model that never saw that source."""
    group = np.array([SIBLINGS.get(row.source, row.source) for row in rows])
    label = np.array([row.code for row in rows])
    score = np.full(len(rows), np.nan)
    for name in sorted({row.source for row in rows if not row.source.startswith(("templates", "prompts"))}):
        held = group == SIBLINGS.get(name, name)
        if np.isnan(score[held]).any():
            score[held] = fit.score(made[held], fit.fit(made[~held], label[~held], weight[~held], strength))
    return score
