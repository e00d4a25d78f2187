"""From what a caller sent to the inputs of a task or a pipeline. Pure; every mistake names the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.errors import CallerError
from app.prompts.spec import may_be_left_out
from app.tasks.contract import validator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.prompts.spec import Schema

_OWN = "sluice_"
"""Metadata that speaks to Sluice begins so."""
_MEANINGLESS = ("tools", "functions", "models", "logprobs", "top_logprobs", "audio", "prediction", "stop")
_MOST_TOLD = 300


def given(body: Mapping[str, Any], inputs: Mapping[str, Schema], primary: str | None) -> dict[str, Any]:
    """Return every input of a call, checked, defaults filled in; None stands for an optional one that was left out.

    Args:
        body: of the chat call: its newest user message, and its metadata.
        inputs: by name, their schemas.
        primary: the one that a plain user message gives.

    Raises:
        CallerError: 400, with the input that is wrong.
    """
    _refuse_meaningless(body)
    found = _from_message(_newest(body["messages"]), inputs, primary)
    told = {name: value for name, value in (body.get("metadata") or {}).items() if not name.startswith(_OWN)}
    found = {name: _typed(value, inputs[name]) for name, value in told.items() if name in inputs} | found
    return complete(found, inputs)


def complete(found: Mapping[str, Any], inputs: Mapping[str, Schema]) -> dict[str, Any]:
    """Fill in defaults and check everything.

    Raises:
        CallerError: 400, one is missing or is not as its schema says.
    """
    values: dict[str, Any] = {}
    for name, schema in inputs.items():
        if found.get(name) is not None:
            values[name] = found[name]
            _check(name, found[name], schema)
        elif may_be_left_out(schema):
            values[name] = schema.get("default")
        else:
            raise _missing(name, inputs)
    return values


def turns_left_out(body: Mapping[str, Any]) -> int:
    """Return how many messages of the call are not used: a task takes the newest user message alone."""
    return len(body["messages"]) - 1


def _refuse_meaningless(body: Mapping[str, Any]) -> None:
    name = next((name for name in _MEANINGLESS if body.get(name)), "n" if (body.get("n") or 1) != 1 else None)
    if name is not None:
        raise CallerError(f"A task or pipeline takes no {name!r}.", code="unsupported_parameter", param=name)


def _newest(messages: list[dict[str, Any]]) -> str:
    content = next((each.get("content") for each in reversed(messages) if each.get("role") == "user"), None)
    if not isinstance(content, list):
        return content or ""
    if any(part.get("type") != "text" for part in content):
        raise CallerError("A task reads texts only.", code="unsupported_parameter", param="messages")
    return "\n".join(part["text"] for part in content)


def _from_message(text: str, inputs: Mapping[str, Schema], primary: str | None) -> dict[str, Any]:
    """Read a JSON object of inputs, or take the text as the primary input."""
    found = _object(text)
    if found is not None and found.keys() & inputs.keys():
        if unknown := found.keys() - inputs.keys():
            raise _wrong(min(unknown), f"is no input; the inputs are {', '.join(inputs)}")
        return found
    if not text.strip():
        return {}
    if primary is None:
        told = f"The user message must be a JSON object with the inputs: {', '.join(inputs)}."
        raise CallerError(told, code="invalid_value", param="messages")
    return {primary: _typed(text, inputs[primary])}


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _typed(value: Any, schema: Schema) -> Any:
    """Decode what came as a string and is meant to be something else: metadata can hold nothing but strings."""
    if not isinstance(value, str) or schema.get("type", "string") == "string":
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _check(name: str, value: Any, schema: Schema) -> None:
    error = next(validator_of(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).iter_errors(value), None)
    if error is not None:
        raise _wrong(f"{name}{error.json_path[1:]}", error.message[:_MOST_TOLD])


def _wrong(path: str, told: str) -> CallerError:
    return CallerError(f"Invalid value: 'inputs.{path}': {told}.", code="invalid_value", param=f"inputs.{path}")


def _missing(name: str, inputs: Mapping[str, Schema]) -> CallerError:
    return CallerError(
        f"Missing input: {name!r}. Give it in metadata, or send a JSON object as the user message with the inputs "
        f"{', '.join(inputs)}.",
        code="missing_required_parameter",
        param=f"inputs.{name}",
    )


def check_ids(values: Mapping[str, Any], name: str, field: str) -> None:
    """See that no two items have the same id: what is said of one could not be told from what is said of the other.

    Raises:
        CallerError: 400, two have.
    """
    seen: set[Any] = set()
    for index, item in enumerate(values[name]):
        if item[field] in seen:
            raise _wrong(f"{name}[{index}].{field}", f"{item[field]!r} is there twice")
        seen.add(item[field])
