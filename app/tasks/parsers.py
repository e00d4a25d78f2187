"""Named parsers: how an answer's text and its value become each other. Pure.

A model is asked for the value as JSON, whatever the caller gets, so that the local engine can constrain it and every
model's answer is judged alike; a model that writes the text instead is understood too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = re.compile(r"^[ \t]*===[ \t]*POST[ \t]+(.+?)[ \t]*===[ \t]*$", re.MULTILINE | re.IGNORECASE)
_FIELD = re.compile(r"^[ \t*]*(ID|Score|Reason)[ \t*]*:[ \t*]*", re.MULTILINE | re.IGNORECASE)


class Parser(NamedTuple):
    """``read`` returns the value that a model was asked for, or None where the text is not of this form."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]


def parser_of(name: str) -> Parser:
    """Return a parser by the name that a prompt file gives."""
    if name.startswith("field:"):
        field = name.removeprefix("field:")
        return Parser(lambda text: _read_field(field, text), lambda value: str(value[field]))
    return Parser(read_scores, write_scores)


def _read_field(field: str, text: str) -> Any:
    """Take a text that is no JSON as the field's value."""
    return None if not text.strip() or text.lstrip().startswith(("{", "[")) else {field: text.strip()}


def read_scores(text: str) -> Any:
    """Read ``=== POST X ===`` blocks with ID, Score and Reason as scores by id."""
    parts = _BLOCK.split(text)[1:]
    if not parts:
        return None
    scores: dict[str, Any] = {}
    for name, block in zip(parts[::2], parts[1::2], strict=True):
        fields = _FIELD.split(block)[1:]
        told = {key.lower(): value.strip() for key, value in zip(fields[::2], fields[1::2], strict=True)}
        scores[told.get("id") or name] = {"score": _number(told.get("score")), "reason": told.get("reason", "")}
    return {"scores": scores}


def _number(text: str | None) -> float | None:
    """Read a score; ``0.8/1.0`` is 0.8. None, which no schema accepts, for anything else."""
    found = re.match(r"(\d+(?:\.\d+)?)(?:\s*/\s*1(?:\.0+)?)?\s*$", text or "")
    return float(found.group(1)) if found else None


def write_scores(value: Any) -> str:
    """Write scores as blocks, those selected named before them."""
    selected = value.get("selected", [])
    head = f"Selected IDs: {', '.join(map(str, selected)) or 'none'}"
    return "\n\n".join([head, *(_block(number, item) for number, item in enumerate(value["scores"], 1))])


def _block(number: int, item: dict[str, Any]) -> str:
    reason = " ".join(str(item["reason"]).split()).replace("===", "==")  # a reason cannot begin a block of its own
    return f"=== POST {number} ===\nID: {item['id']}\nScore: {item['score']:.2f}\nReason: {reason}"
