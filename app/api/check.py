"""Light checks of bodies, by hand: a pydantic model of the messages would cost more than everything else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from app.endpoints import RELAYS
from app.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Callable

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_NUMBER = (int, float)
_LONGEST_NAME = 512
"""Names are kept as keys of lanes and caches, and stand in headers and logs; a path to a local model is one, too."""
_MOST_MODELS = 32
_MOST_CHOICES = 128  # OpenAI's own bound of n
_MOST_INPUTS = 2048  # OpenAI's own bound of an embedding call


def bad(path: str, must: str) -> CallerError:
    """Return the error of a field that is wrong, by its path."""
    return CallerError(f"Invalid value: '{path}' {must}.", code="invalid_value", param=path)


def _check(body: dict[str, Any], name: str, kinds: type | tuple[type, ...], must: str) -> None:
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise bad(name, must)


def _check_common(body: dict[str, Any]) -> None:
    _check(body, "model", str, "must be a string")
    _check(body, "user", str, "must be a string")
    models = body.get("models")
    if models is not None and not (isinstance(models, list) and all(isinstance(each, str) for each in models)):
        raise bad("models", "must be an array of model names")
    if len(models or ()) > _MOST_MODELS:
        raise bad("models", f"must name at most {_MOST_MODELS} models")
    for path, name in (("model", body.get("model") or ""), *((f"models[{i}]", n) for i, n in enumerate(models or ()))):
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise bad(path, f"must be at most {_LONGEST_NAME} printable characters")


_TYPED: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("stream", bool, "must be true or false"),
    ("stream_options", dict, "must be an object"),
    ("temperature", _NUMBER, "must be a number"),
    ("top_p", _NUMBER, "must be a number"),
    ("presence_penalty", _NUMBER, "must be a number"),
    ("frequency_penalty", _NUMBER, "must be a number"),
    ("seed", int, "must be a whole number"),
    ("logprobs", bool, "must be true or false"),
    ("top_logprobs", int, "must be a whole number"),
    ("logit_bias", dict, "must be an object"),
    ("response_format", dict, "must be an object"),
    ("tool_choice", (str, dict), "must be a string or an object"),
    ("parallel_tool_calls", bool, "must be true or false"),
    ("stop", (str, list), "must be a string or an array of strings"),
    ("reasoning_effort", str, "must be a string"),
)
_AT_LEAST_ONE = ("max_tokens", "max_completion_tokens", "n")


def _check_chat(body: dict[str, Any]) -> None:
    _check_common(body)
    for name, kinds, must in _TYPED:
        if name in body:
            _check(body, name, kinds, must)
    for name in _AT_LEAST_ONE:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise bad(name, "must be a whole number of at least 1")
    if (body.get("n") or 1) > _MOST_CHOICES:
        raise bad("n", f"must be at most {_MOST_CHOICES}")
    if isinstance(body.get("stop"), list):
        _check_strings(body["stop"], "stop")
    _check_messages(body.get("messages"))
    _check_tools(body.get("tools"))


def _check_strings(values: list[Any], path: str) -> None:
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise bad(f"{path}[{index}]", "must be a string")


def _check_messages(messages: Any) -> None:
    if messages is None:
        raise CallerError(
            "Missing required parameter: 'messages'.", code="missing_required_parameter", param="messages"
        )
    if not isinstance(messages, list) or not messages:
        raise bad("messages", "must be a non-empty array")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")


def _check_message(message: Any, path: str) -> None:
    if not isinstance(message, dict):
        raise bad(path, "must be an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"{path}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    content = message.get("content")
    if isinstance(content, list):
        _check_parts(content, f"{path}.content")
    elif content is not None and not isinstance(content, str):
        raise bad(f"{path}.content", "must be a string or an array of parts")
    if message.get("tool_calls") is not None:
        _check_objects(message["tool_calls"], f"{path}.tool_calls")


def _check_parts(parts: list[Any], path: str) -> None:
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise bad(f"{path}[{index}]", "must be an object with a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise bad(f"{path}[{index}].text", "must be a string")
        if part["type"] == "image_url" and not isinstance(part.get("image_url"), dict):
            raise bad(f"{path}[{index}].image_url", "must be an object with a url")


def _check_tools(tools: Any) -> None:
    if tools is not None:
        _check_objects(tools, "tools")


def _check_objects(values: Any, path: str) -> None:
    if not isinstance(values, list):
        raise bad(path, "must be an array of objects")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise bad(f"{path}[{index}]", "must be an object")


def _check_embeddings(body: dict[str, Any]) -> None:
    _check_common(body)
    given = body.get("input")
    if given is None:
        raise CallerError("Missing required parameter: 'input'.", code="missing_required_parameter", param="input")
    if not _embeddable(given):
        raise bad("input", f"must be a string, token ids, or an array of at most {_MOST_INPUTS} of either; none empty")
    dimensions = body.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1):
        raise bad("dimensions", "must be a whole number of at least 1")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise bad("encoding_format", "must be float or base64")


def _embeddable(given: Any) -> bool:
    """Whether something is a text, a text as token ids, or several of one kind."""
    if isinstance(given, str):
        return bool(given)
    if not isinstance(given, list) or not given or _are_tokens(given):
        return isinstance(given, list) and bool(given)
    if len(given) > _MOST_INPUTS:
        return False
    return all(isinstance(each, str) and each for each in given) or all(_are_tokens(each) and each for each in given)


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _check_relay(endpoint: str, body: dict[str, Any]) -> None:
    _check_common(body)
    required = RELAYS[endpoint].required
    if body.get(required) in (None, ""):
        raise CallerError(
            f"Missing required parameter: '{required}'.", code="missing_required_parameter", param=required
        )


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "chat": _check_chat,
    "embeddings": _check_embeddings,
    **{endpoint: partial(_check_relay, endpoint) for endpoint in RELAYS},
}
