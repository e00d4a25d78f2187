"""JSON documents that a schema accepts, small or full, and how models write them down."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream.faults import Faults

_SCALARS: dict[str, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": True, "null": None}
_SENTENCE = "It is scripted."
_FORMATS = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "email": "a@example.org"}
_SAMPLES = ("C4", "abc", "12", "a-b")


def written(schema: Any, faults: Faults) -> str:
    """Return a document as text, in the flavour that the model's name asks for."""
    value = minimal(schema, full=int(faults.number("full", 3)) if faults.has("full") else 0)
    if faults.has("offschema"):
        value = {"something": "else"}
    if faults.has("nojson"):
        return "I would rather say it in a sentence of my own."
    if faults.has("blocks"):
        return _blocks(value)
    if faults.has("loose"):
        return repr(value)[:-1] + ",}"
    text = orjson.dumps(value).decode()
    return f"Here is the document:\n```json\n{text}\n```\nThat is all." if faults.has("prose") else text


def _blocks(value: Any) -> str:
    scores = value["scores"].items()
    return "\n\n".join(
        f"=== POST {number} ===\nID: {name}\nScore: {each['score']}\nReason: {each['reason']}"
        for number, (name, each) in enumerate(scores, 1)
    )


def minimal(schema: Any, full: int = 0) -> Any:
    """Return a document that a schema accepts; all properties are present, as strict schemas ask.

    Args:
        schema: the schema.
        full: items of lists that may be of any length; with any, texts are sentences, and choices go in turn.
    """
    return _Writer(schema, full).value(schema)


class _Writer:
    def __init__(self, root: Any, full: int) -> None:
        self._root = root
        self._full = full
        self._turn: Iterator[int] = itertools.count()

    def value(self, schema: Any) -> Any:
        if not isinstance(schema, dict):
            return "text"
        if "$ref" in schema:
            return self.value(_resolve(self._root, schema["$ref"]))
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][next(self._turn) % len(schema["enum"]) if self._full else 0]
        for key in ("anyOf", "oneOf", "allOf"):
            if schema.get(key):
                return self.value(schema[key][-1 if key == "anyOf" and schema[key][0].get("$ref") else 0])
        return self._typed(schema)

    def _typed(self, schema: dict[str, Any]) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            return {name: self.value(part) for name, part in schema.get("properties", {}).items()}
        if kind == "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", self._full)
            return [self.value(schema.get("items", {})) for _ in range(max(least, min(self._full, most)))]
        if kind in {"integer", "number"}:
            return _number(schema, next(self._turn) if self._full else 0)
        return self._string(schema) if kind == "string" else _SCALARS.get(kind, "text")

    def _string(self, schema: dict[str, Any]) -> str:
        if "pattern" in schema:
            return next(each for each in _SAMPLES if re.search(schema["pattern"], each))
        text = _FORMATS.get(schema.get("format", ""), _SENTENCE if self._full else "text")
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _resolve(root: Any, ref: str) -> Any:
    for name in ref.removeprefix("#").strip("/").split("/"):
        root = root[name] if name else root
    return root


def _number(schema: dict[str, Any], turn: int) -> float:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1), schema.get("maximum", math.inf)
    if high == 1 and turn:
        return round(0.05 * (turn % 21), 2)
    return min(low, high)  # type: ignore[no-any-return]
