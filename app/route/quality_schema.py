"""Whether an answer is the JSON that was asked for: a small JSON Schema check that never gives a false alarm.

The schema comes from the caller and the check runs in the gateway's own process, so it does less than a full
validator, on purpose (docs/decisions): no regular expressions of the caller's (``pattern``, ``patternProperties``: one
can be made to run for hours), no fetching of ``$ref`` beyond the schema itself, and a budget of steps. What is not
judged counts as met.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.route.quality_case import Case

_MAX_CHARS = 2_000_000  # longer answers are not parsed
_MAX_STEPS = 5_000  # a few milliseconds; the rest of a larger answer is left unjudged
_MAX_DEPTH = 64


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": lambda v: _is_number(v) and (isinstance(v, int) or v.is_integer()),
}


def schema_miss(case: Case) -> bool:
    """Tell whether the ask wants JSON and the answer is not JSON, no object, or not as the schema has it.

    The answer is judged as it came, code fences and all: the caller's parser reads the same.
    """
    if case.response_format is None or case.tool_calls or len(case.raw) > _MAX_CHARS:
        return False
    try:
        value = parse_json(case.raw)
    except ValueError:
        return not _continues(case)
    if case.response_format["type"] == "json_object":
        return not isinstance(value, dict)
    wrapper = case.response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    return not conforms(value, schema)


def conforms(value: Any, schema: Any) -> bool:
    """Tell whether a JSON value keeps to a schema, as far as that is judged (see the module's text)."""
    try:
        return _Walk(schema).holds(value, schema, 0)
    except (_OutOfStepsError, RecursionError):
        return True


def parse_json(text: str) -> Any:
    """Parse JSON; integers of any size are read.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses what the standard parser reads (lone surrogates in escapes, depth); the callers' may too,
        # but in doubt the answer is good.
        pass
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _continues(case: Case) -> bool:
    """Tell whether the answer is JSON once the prefill that it continues is put before it."""
    if case.text == case.raw.strip():
        return False
    try:
        parse_json(case.text)
    except ValueError:
        return False
    return True


class _OutOfStepsError(Exception):
    """The budget is spent; no miss was seen so far."""


class _Walk:
    """One check of a value; holds the root for references and the budget of steps."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def holds(self, value: Any, schema: Any, depth: int) -> bool:
        if schema is False:
            return False
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return True
        self._charge(schema)
        return _scalar_holds(value, schema) and all(
            check(self, value, schema, depth) for key, check in _APPLICATORS if key in schema
        )

    def _charge(self, schema: dict[str, Any]) -> None:
        lists = (schema.get(key) for key in ("enum", "required", "properties"))
        self._steps += 1 + sum(len(names) for names in lists if isinstance(names, (list, dict)))
        if self._steps > _MAX_STEPS:
            raise _OutOfStepsError

    def ref(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        return self.holds(value, _resolve(self._root, schema["$ref"]), depth + 1)

    def all_of(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        return all(self.holds(value, sub, depth + 1) for sub in _schemas(schema["allOf"]))

    def any_of(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        subs = _schemas(schema["anyOf"])
        return not subs or any(self.holds(value, sub, depth + 1) for sub in subs)

    def one_of(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        # More than one match is no miss where a branch is judged only in part (a pattern): at least one must hold.
        subs = _schemas(schema["oneOf"])
        return not subs or any(self.holds(value, sub, depth + 1) for sub in subs)

    def items(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        if not isinstance(value, list) or isinstance(schema["items"], list):
            return True
        first = len(_schemas(schema.get("prefixItems")))
        return all(self.holds(item, schema["items"], depth + 1) for item in value[first:])

    def prefix_items(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        if not isinstance(value, list):
            return True
        pairs = zip(value, _schemas(schema["prefixItems"]), strict=False)
        return all(self.holds(item, sub, depth + 1) for item, sub in pairs)

    def properties(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        known = schema["properties"]
        if not isinstance(value, dict) or not isinstance(known, dict):
            return True
        return all(self.holds(value[name], sub, depth + 1) for name, sub in known.items() if name in value)

    def additional(self, value: Any, schema: dict[str, Any], depth: int) -> bool:
        if not isinstance(value, dict) or "patternProperties" in schema:
            return True
        known = schema.get("properties")
        names = known if isinstance(known, dict) else {}
        rest = (item for name, item in value.items() if name not in names)
        return all(self.holds(item, schema["additionalProperties"], depth + 1) for item in rest)


_APPLICATORS: Final[tuple[tuple[str, Callable[[_Walk, Any, dict[str, Any], int], bool]], ...]] = (
    ("$ref", _Walk.ref),
    ("allOf", _Walk.all_of),
    ("anyOf", _Walk.any_of),
    ("oneOf", _Walk.one_of),
    ("properties", _Walk.properties),
    ("additionalProperties", _Walk.additional),
    ("prefixItems", _Walk.prefix_items),
    ("items", _Walk.items),
)


def _scalar_holds(value: Any, schema: dict[str, Any]) -> bool:
    return all(check(value, schema[key]) for key, check in _SCALARS if key in schema)


def _type(value: Any, wanted: Any) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    return any(not isinstance(name, str) or name not in _TYPES or _TYPES[name](value) for name in names)


def _enum(value: Any, choices: Any) -> bool:
    return not isinstance(choices, list) or any(_same(value, choice) for choice in choices)


def _required(value: Any, names: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(names, list):
        return True
    return all(name in value for name in names if isinstance(name, str))


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON does: 1 equals 1.0, but neither equals true, at any depth."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _limit(measure: Callable[[Any], float | None], keeps: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    """Build a check of one bound; a value that cannot be measured, or a bound that is no number, is not judged."""

    def holds(value: Any, bound: Any) -> bool:
        size = measure(value)
        return size is None or not _is_number(bound) or keeps(size, bound)

    return holds


def _number(value: Any) -> float | None:
    return value if _is_number(value) else None


def _length(kind: type[str | list[Any] | dict[Any, Any]]) -> Callable[[Any], float | None]:
    return lambda value: len(value) if isinstance(value, kind) else None


def _at_least(size: float, bound: float) -> bool:
    return size >= bound


def _at_most(size: float, bound: float) -> bool:
    return size <= bound


_SCALARS: Final[tuple[tuple[str, Callable[[Any, Any], bool]], ...]] = (
    ("type", _type),
    ("enum", _enum),
    ("const", _same),
    ("required", _required),
    ("minimum", _limit(_number, _at_least)),
    ("maximum", _limit(_number, _at_most)),
    ("exclusiveMinimum", _limit(_number, lambda size, bound: size > bound)),
    ("exclusiveMaximum", _limit(_number, lambda size, bound: size < bound)),
    ("minLength", _limit(_length(str), _at_least)),
    ("maxLength", _limit(_length(str), _at_most)),
    ("minItems", _limit(_length(list), _at_least)),
    ("maxItems", _limit(_length(list), _at_most)),
    ("minProperties", _limit(_length(dict), _at_least)),
    ("maxProperties", _limit(_length(dict), _at_most)),
)


def _schemas(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolve(root: Any, ref: Any) -> Any:
    """Return what a reference within the schema points to (RFC 6901); None, which admits all, for any other."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        return None
    node = root
    for step in ref[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
