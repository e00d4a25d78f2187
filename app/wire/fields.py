"""Small checks and makers that all translations share."""

from __future__ import annotations

import os
from typing import Any

import orjson

from app.errors import CallerError

Json = dict[str, Any]


def bad(path: str, must: str) -> CallerError:
    """Return the error of a field that is wrong, by its path."""
    return CallerError(f"Invalid value: '{path}' {must}.", code="invalid_value", param=path)


def missing(name: str) -> CallerError:
    """Return the error of a field that is not there."""
    return CallerError(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)


def unsupported(path: str, told: str, code: str = "unsupported_parameter") -> CallerError:
    """Return the error of a field that means something which cannot be done here."""
    return CallerError(told, code=code, param=path)


def an_object(value: Any, path: str) -> Json:
    """Return a JSON object.

    Raises:
        CallerError: it is something else.
    """
    if not isinstance(value, dict):
        raise bad(path, "must be an object")
    return value


def an_array(value: Any, path: str) -> list[Any]:
    """Return a JSON array.

    Raises:
        CallerError: it is something else.
    """
    if not isinstance(value, list):
        raise bad(path, "must be an array")
    return value


def a_string(value: Any, path: str) -> str:
    """Return a string.

    Raises:
        CallerError: it is something else.
    """
    if not isinstance(value, str):
        raise bad(path, "must be a string")
    return value


def objects(value: Any, path: str) -> list[tuple[str, Json]]:
    """Return the objects of an array, each with its path; nothing where the array is null.

    Raises:
        CallerError: it is something else.
    """
    if value is None:
        return []
    return [(f"{path}[{i}]", an_object(each, f"{path}[{i}]")) for i, each in enumerate(an_array(value, path))]


def kept(body: Json, names: tuple[str, ...]) -> Json:
    """Return the fields of these names that are there and not null."""
    return {name: body[name] for name in names if body.get(name) is not None}


def hints_of(body: Json) -> Json:
    """Return the metadata of a request where they speak to Sluice; what only the caller reads is not passed on.

    Raises:
        CallerError: they are no object.
    """
    told = body.get("metadata")
    if told is None:
        return {}
    metadata = an_object(told, "metadata")
    model = str(body.get("model") or "")
    ours = model.startswith(("task/", "pipeline/")) or any(name.startswith("sluice_") for name in metadata)
    return {"metadata": metadata} if ours else {}


def new_id(prefix: str) -> str:
    """Return a fresh id, e.g. ``msg_0123…``."""
    return prefix + os.urandom(12).hex()


def frame(event: Json) -> bytes:
    """Return an event that says its own type, as one server-sent event of that name."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


def reasoning_of(said: Json) -> str:
    """Return the reasoning in a message or a delta, by either of the names that backends give it."""
    told = said.get("reasoning_content") or said.get("reasoning")
    return told if isinstance(told, str) else ""
