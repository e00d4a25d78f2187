"""Labelled prompts from a directory of JSON lines, and what their licences allow.

A directory may hold any of: ``code_intent_train.jsonl`` and ``code_intent_dev.jsonl`` ({prompt, label, source, lang,
slice, license}), ``outcomes_dev.jsonl`` ({prompt, weak, strong} or {prompt, outcomes}) and ``gsm8k_train_steps.jsonl``
({prompt, steps}). Every reader returns rows of the same two shapes, so that another source is one more reader.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from classifier.generate import Row

if TYPE_CHECKING:
    from pathlib import Path

PERMISSIVE = re.compile(r"^(MIT|Apache-2\.0|BSD|CC0|CC-BY-[34]\.0|ODC-By)", re.IGNORECASE)
"""Licences whose rows may shape the shipped weights (attribution is given in the model card)."""
REFUSED = re.compile(r"-NC|-SA|-ND|GPL|proprietary|research", re.IGNORECASE)

KIND_OF_SOURCE = {
    "clinc150": "chat", "gsm8k_train": "math", "MATH_L5": "math", "CRUXEval": "analysis", "MMLU_cs": "analysis",
    "BBH": "analysis",
}  # fmt: skip

KIND_RULES = (
    ("translation", re.compile(r"^\W*(please )?translate\b|翻译|^переведи", re.IGNORECASE)),
    ("summarise", re.compile(r"\bsummari[sz]e\b|摘要|总结|概括|^кратко", re.IGNORECASE)),
    ("extraction", re.compile(r"^\W*(extract|classify|identify)\b|提取|找出|分类|извлеки|情感", re.IGNORECASE)),
    ("math", re.compile(r"^\W*(calculate|solve|compute)\b|^реши|计算|方程", re.IGNORECASE)),
    ("creative", re.compile(r"\b(poem|haiku|story|essay|song|limerick|slogan|speech|letter|rap|riddle|tweet)\b"
                            r"|一首诗|故事|文案|作文|一封|стих|рассказ|сказк", re.IGNORECASE)),
    ("analysis", re.compile(r"\b(compare|difference between|analy[sz]e|pros and cons|what does this)\b|区别|分析|比较"
                            r"|отличается|Unterschied|diferencia|diferença|différence|違い", re.IGNORECASE)),
)  # fmt: skip


class Outcome(NamedTuple):
    """One prompt and how often weak models failed on it (0 to 1); ``weak`` and ``strong`` where a pair was run."""

    prompt: str
    fails: float
    weight: float
    source: str
    group: str
    weak: float | None = None
    strong: float | None = None


def permitted(licence: str) -> bool:
    """Return whether a row under this licence may shape the shipped weights; of several all must allow it."""
    parts = [part.strip() for part in licence.split("/")]
    return all(PERMISSIVE.match(part) and not REFUSED.search(part) for part in parts)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def code_rows(directory: Path, split: str) -> list[Row]:
    """Return the rows of ``code_intent_<split>.jsonl`` that the licence rule lets pass."""
    return [
        Row(row["prompt"], int(row["label"]), kind_of(row), row["source"], row["lang"], row["license"])
        for row in _lines(directory / f"code_intent_{split}.jsonl")
        if permitted(row["license"])
    ]


def kind_of(row: dict[str, Any]) -> str | None:
    """Return the kind that provenance or a plain rule gives; None where neither does."""
    if row["label"]:
        return "code"
    if row["source"] in KIND_OF_SOURCE:
        return KIND_OF_SOURCE[row["source"]]
    return next((kind for kind, rule in KIND_RULES if rule.search(row["prompt"][:200])), None)


def outcomes(directory: Path) -> list[Outcome]:
    """Return every prompt with outcomes; of many models the small ones (up to 9 billion parameters) count as weak."""
    rows = _lines(directory / "outcomes_dev.jsonl")
    return [_pair(row) if "weak" in row else _many(row) for row in rows if permitted(row["license"])]


def _pair(row: dict[str, Any]) -> Outcome:
    return Outcome(row["prompt"], 1.0 - row["weak"], 1.0, row["source"], row["sub"], row["weak"], row["strong"])


_SMALL = re.compile(r"mini-instruct|[1-9]b-", re.IGNORECASE)


def _many(row: dict[str, Any]) -> Outcome:
    results = [ok for model, ok in row["outcomes"].items() if _SMALL.search(model) and "70B" not in model]
    fails = 1.0 - sum(results) / len(results)
    return Outcome(row["prompt"], fails, 0.5, row["source"], row["source"])


def steps(directory: Path) -> list[Outcome]:
    """Return the GSM8K prompts; their number of steps stands for the chance that a weak model fails.

    No outcome is known. Two steps count 0.03, ten or more 0.93, in a line between.
    """
    return [
        Outcome(row["prompt"], 0.03 + 0.9 * min(max(row["steps"] - 2, 0) / 8, 1.0), 1.0, row["source"], "gsm8k")
        for row in _lines(directory / "gsm8k_train_steps.jsonl")
        if permitted(row["license"])
    ]
