"""Whether an answer keeps to its task's contract, and what little may be repaired. Pure.

Only quotes and commas are ever repaired: a repair that would change, add or lose a word or a bracket is none, since a
missing bracket cannot be told from a missing rest. Then the model is asked again.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from app.route.quality import inspect
from app.route.quality_schema import parse_json
from app.tasks.parsers import parser_of
from app.tasks.schema import bound, folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import Draft202012Validator

    from app.prompts.spec import Output, Schema

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A\s*```\w*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
_WORD = re.compile(r"[^\W_]+|[{}\[\]]")
_SAME = {"none": "null"}
_MOST_CHARS = 2_000_000
_MOST_ERRORS = 3
_MOST_TOLD = 300


@dataclass(frozen=True, slots=True)
class Good:
    """An answer that keeps to the contract.

    Attributes:
        value: what it holds: by the schema where there is one, else the text.
        repaired: whether its JSON had to be repaired.
    """

    value: Any
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that does not; ``why`` is for the model and the caller to read."""

    why: str


def judge(output: Output, text: str, finish_reason: str | None, values: Mapping[str, Any]) -> Good | Broken:
    """Judge one answer.

    Args:
        output: the contract.
        text: what the model said.
        finish_reason: why it stopped.
        values: the inputs of the call.
    """
    text = _THOUGHT.sub("", text)
    if faults := _faults(output, text, finish_reason):
        return Broken(f"The answer has these faults: {', '.join(faults)}.")
    if output.wanted is None:
        text = text.strip()
        return Good(text) if text else Broken("The answer is empty.")
    if len(text) > _MOST_CHARS:
        return Broken(f"The answer is longer than {_MOST_CHARS} characters.")
    value, repaired = _decoded(text, output.parser, cut=finish_reason == "length")
    if value is _Nothing:
        return Broken(_no_json(text, finish_reason))
    if not _finite(value):
        return Broken("The answer holds a number that is larger than any that can be passed on.")
    if wrong := violations(value, bound(output.wanted, values)):
        return Broken(f"The answer does not keep to the schema: {'; '.join(wrong)}.")
    return Good(folded(value, output.wanted, values), repaired)


def violations(value: Any, schema: Schema) -> list[str]:
    """Return what is wrong with a value, the first few faults with their places."""
    validator = validator_of(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
    errors = sorted(validator.iter_errors(value), key=lambda error: len(error.absolute_path))
    return [f"{error.json_path}: {error.message[:_MOST_TOLD]}" for error in errors[:_MOST_ERRORS]]


@lru_cache(maxsize=64)
def validator_of(schema: bytes) -> Draft202012Validator:
    """Return the validator of a schema; references lead nowhere outside of it."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(orjson.loads(schema), registry=Registry())


def _faults(output: Output, text: str, finish_reason: str | None) -> tuple[str, ...]:
    if not output.checks:
        return ()
    found = inspect({"messages": []}, text, kind=None, finish_reason=finish_reason)
    return tuple(fault for fault in found if fault in output.checks)


class _Nothing:
    """No value: None is one."""


def _decoded(text: str, parser: str | None, *, cut: bool) -> tuple[Any, bool]:
    """Return the value of an answer, and whether it was repaired; ``_Nothing`` where there is none."""
    for part in _parts(text):
        try:
            return parse_json(part), False
        except ValueError:
            continue
    if parser is not None and (value := parser_of(parser).read(text)) is not None:
        return value, False
    return (_Nothing if cut else _repaired(text)), True


def _parts(text: str) -> Iterator[str]:
    """Yield where the JSON may stand: all of it, what a fence holds, what lies between the outermost braces."""
    yield text
    if fenced := _FENCED.match(text):
        yield fenced.group(1)
    yield _outermost(text)


def _outermost(text: str) -> str:
    first, last = text.find("{"), text.rfind("}")
    return text[first : last + 1] if 0 <= first < last else ""


def _repaired(text: str) -> Any:
    """Repair quotes and commas, as long as every word and bracket stays what and where it is."""
    from json_repair import repair_json

    part = _outermost(text)
    if not part:
        return _Nothing
    try:
        value = repair_json(part, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError):
        return _Nothing
    return value if isinstance(value, dict) and _words(part) == _words(written(value)) else _Nothing


def _words(text: str) -> list[str]:
    return [_SAME.get(word, word) for word in map(str.lower, _WORD.findall(text))]


def _finite(value: Any) -> bool:
    """Whether JSON can say the value: a number like 1e999 is read as infinity, and written as null."""
    if isinstance(value, float):
        return math.isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_finite, parts))


def written(value: Any) -> str:
    """Return a value as JSON; a model may have written integers and halves of characters that orjson refuses."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"), default=str)


def _no_json(text: str, finish_reason: str | None) -> str:
    if finish_reason == "length":
        return "The answer was cut off before the JSON was complete: write less."
    return "The answer is empty." if not text.strip() else "The answer is not the JSON object that was asked for."
