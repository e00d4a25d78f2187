"""Schemas that are bound to the inputs of a call, so that an answer can only speak of what was given. Pure.

``x-one-of: posts.id`` on a schema: the value is one of the inputs' ids. ``x-for-each: posts.id`` on an object's schema:
the model writes one such object for each id, as properties of one object, so that none is left out or told twice; the
caller gets them as a list, in the order of the input, each with its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.prompts.read import FOR_EACH, ONE_OF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.prompts.spec import Schema


def ids_of(reference: str, values: Mapping[str, Any]) -> list[Any]:
    """Return what ``posts.id`` refers to: the field of each item, once each, in order."""
    name, _, field = reference.partition(".")
    return list(dict.fromkeys(item[field] for item in values[name] or ()))


def bound(schema: Any, values: Mapping[str, Any]) -> Any:
    """Return the plain JSON schema of one call."""
    if isinstance(schema, list):
        return [bound(each, values) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: bound(value, values) for key, value in schema.items() if key not in {ONE_OF, FOR_EACH}}
    if ONE_OF in schema:
        plain["enum"] = ids_of(schema[ONE_OF], values)
    if FOR_EACH not in schema:
        return plain
    names = [str(each) for each in ids_of(schema[FOR_EACH], values)]
    return {
        "type": "object",
        "properties": dict.fromkeys(names, plain),
        "required": names,
        "additionalProperties": False,
    }


def shown(schema: Any) -> Any:
    """Return the schema as a prompt shows it: the same for every call, with nothing of the inputs in it."""
    if isinstance(schema, list):
        return [shown(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: shown(value) for key, value in schema.items() if key not in {ONE_OF, FOR_EACH}}
    if ONE_OF in schema:
        plain["description"] = f"{plain.get('description', '')} One of those given in {schema[ONE_OF]}.".strip()
    if FOR_EACH not in schema:
        return plain
    told = f"One property for each of {schema[FOR_EACH]}, named by it, none left out."
    return {"type": "object", "description": told, "additionalProperties": plain}


def folded(value: Any, schema: Any, values: Mapping[str, Any]) -> Any:
    """Return a valid answer as the caller gets it: objects by id as lists, and no id twice in a list."""
    if not isinstance(schema, dict):
        return value
    if FOR_EACH in schema:
        return _listed(value, schema, values)
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        return {name: folded(each, parts.get(name), values) for name, each in value.items()}
    if isinstance(value, list):
        return _once([folded(each, schema.get("items"), values) for each in value], schema.get("items"))
    return value


def _listed(value: Any, schema: Schema, values: Mapping[str, Any]) -> list[Any]:
    field = schema[FOR_EACH].partition(".")[2]
    rest = {key: each for key, each in schema.items() if key != FOR_EACH}
    found = []
    for each in ids_of(schema[FOR_EACH], values):
        inner = folded(value[str(each)], rest, values)
        found.append({field: each, **(inner if isinstance(inner, dict) else {"value": inner})})
    return found


def _once(items: list[Any], schema: Any) -> list[Any]:
    """Keep the first of the items that speak of the same id."""
    parts = schema.get("properties", {}) if isinstance(schema, dict) else {}
    name = next((name for name, part in parts.items() if isinstance(part, dict) and ONE_OF in part), None)
    if name is None:
        return items
    once: dict[Any, Any] = {}
    for item in items:
        once.setdefault(item.get(name), item)
    return list(once.values())
