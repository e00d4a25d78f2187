"""What is known of each backend's wire, as data: fields to drop or rename, abilities it lacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from app.endpoints import RELAYS
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.call import Ask, Target
    from app.config import BackendConfig
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Dialect:
    """The quirks of one wire.

    Attributes:
        drop: fields of the body that it rejects or ignores, and that mean nothing to it.
        rename: fields that have another name there.
        message_drop: fields of a message that it rejects.
        developer: whether it knows the role ``developer``; else that becomes ``system``.
        lacks: abilities (see app.route.needs) that no model behind it has; among them the endpoints that it has not.
        base64: whether it gives embeddings as base64 where that is asked for; else they are asked for as numbers.
        wires: the wires beside the chat's that it has, and over which it gets a caller's own words.
        completers: models that have the wire ``completions``, where not all do.
    """

    drop: frozenset[str] = frozenset()
    rename: Mapping[str, str] | None = None
    message_drop: frozenset[str] = frozenset()
    developer: bool = False
    lacks: frozenset[str] = frozenset()
    base64: bool = True
    wires: frozenset[str] = frozenset()
    completers: re.Pattern[str] | None = None


_RELAYS = frozenset(RELAYS)
_AUDIO = frozenset({"transcriptions", "translations", "speech"})
_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
_SLUICE_FIELDS = frozenset({"models"})
"""Fields that speak to Sluice and mean nothing behind it."""
_THOUGHT = frozenset({"reasoning_content", "reasoning", "thinking_blocks"})
"""What an assistant's message says of its own thinking: refused where messages are checked strictly."""
_SIGNED = frozenset({"thinking_blocks"})
_BY_WIRE = {
    "responses": frozenset({"builtin_tools"}),
    "messages": frozenset({"server_tools"}),
    "completions": frozenset({"suffix", "best_of", "token_prompt", "echo_logprobs"}),
}
"""Abilities that only a target with the wire itself has."""
_NO_REASONING = re.compile(
    r"gpt-4|gpt-3\.5|llama-?[23]|llama-?4|mixtral|gemma-?[123]|phi-?3|qwen-?[12]\b|qwen-?2\.5|qwen2|claude-(3-[05h]|2|instant)"
)
"""Models that have no effort to set, and whose servers refuse the field."""

DIALECTS: dict[str, Dialect] = {
    # max_tokens is deprecated and refused by reasoning models.
    "openai": Dialect(
        drop=frozenset({"top_k"}),
        rename={"max_tokens": "max_completion_tokens"},
        message_drop=_THOUGHT,
        developer=True,
        wires=frozenset({"responses"}),
        completers=re.compile(r"instruct|davinci|babbage"),
    ),
    "compatible": Dialect(rename=_MAX_TOKENS, message_drop=_SIGNED),
    # 400 if these are supplied at all: console.groq.com/docs/openai
    "groq": Dialect(
        drop=frozenset({"logprobs", "top_logprobs", "logit_bias", "n", "top_k"}),
        message_drop=frozenset({"name"}) | _THOUGHT,
        lacks=frozenset({"n", "logprobs", "logit_bias", "file", "embeddings"}) | (_RELAYS - _AUDIO),
    ),
    "openrouter": Dialect(message_drop=_SIGNED, lacks=_RELAYS),
    # ai.google.dev/gemini-api/docs/openai: of the endpoints beside chat it has embeddings and images/generations.
    "gemini": Dialect(
        drop=frozenset({"top_k"}),
        rename=_MAX_TOKENS,
        message_drop=_THOUGHT,
        lacks=frozenset({"token_ids"}) | (_RELAYS - frozenset({"images"})),
        base64=False,
    ),
    "workers-ai": Dialect(
        rename=_MAX_TOKENS,
        message_drop=_THOUGHT,
        lacks=frozenset({"n", "logprobs", "logit_bias", "file", "token_ids"}) | _RELAYS,
        base64=False,
    ),
    "mlx": Dialect(
        wires=frozenset({"completions"}),
        lacks=frozenset({"suffix", "best_of", "echo_logprobs", "file", "audio", "dimensions"}) | _RELAYS,
    ),
    # Not fields of its /v1 request: silently ignored, so that a limit would not hold.
    "ollama": Dialect(
        drop=frozenset({"user", "parallel_tool_calls", "n", "tool_choice"}),
        rename=_MAX_TOKENS,
        message_drop=_THOUGHT,
        lacks=frozenset({"n", "tool_choice", "image_url", "file", "token_ids"}) | _RELAYS,
        base64=False,
    ),
    # Its own wire, see app.wire.chat_messages.
    "anthropic": Dialect(
        lacks=frozenset({"n", "logprobs", "logit_bias", "audio", "embeddings"}) | _RELAYS,
        wires=frozenset({"messages"}),
    ),
}


def adapt(body: dict[str, Any], target: Target, dialect: str) -> dict[str, Any]:
    """Return the body as this wire wants it; fields that nobody here knows pass unchanged.

    Usage is always asked for, since cost comes from it; it is handed down only if the caller asked.
    """
    quirks = DIALECTS[dialect]
    adapted = {**body, "model": target.model}
    for field in (quirks.drop | _SLUICE_FIELDS) & adapted.keys():
        del adapted[field]
    for field, name in (quirks.rename or {}).items():
        if field in adapted:
            value = adapted.pop(field)
            adapted.setdefault(name, value)
    if not quirks.base64 and adapted.get("encoding_format") == "base64":
        adapted["encoding_format"] = "float"
    if "reasoning_effort" in adapted and _NO_REASONING.search(target.model.lower()):
        del adapted["reasoning_effort"]
    if adapted.get("stream") is True:
        options = adapted.get("stream_options")
        adapted["stream_options"] = {**options, "include_usage": True} if options else {"include_usage": True}
    messages = adapted.get("messages")
    if isinstance(messages, list) and (quirks.message_drop or not quirks.developer):
        adapted["messages"] = [_message(each, quirks) if isinstance(each, dict) else each for each in messages]
    return adapted


_SCHEMA_AWARE = re.compile(r"gpt-oss|kimi|llama-4|qwen-?3")
"""Groq's models that take a JSON schema; the others answer 400: console.groq.com/docs/structured-outputs"""
_LENGTHS = frozenset({"minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties", "default", "title"})
"""Keywords that strict structured outputs refuse: platform.openai.com/docs/guides/structured-outputs"""


def schema_as_taken(body: dict[str, Any], target: Target, dialect: str, *, refused: bool) -> dict[str, Any]:
    """Return the body of a call whose prompt says the format as well: with a schema only as far as this wire takes one.

    The local engine takes all of it; others what strict mode allows; those that take no schema are asked for JSON, or
    for nothing where they know no ``response_format``, or where one was refused.
    """
    form = body.get("response_format")
    if not isinstance(form, dict) or form.get("type") != "json_schema" or (dialect == "mlx" and not refused):
        return body
    if refused or "schema" in DIALECTS[dialect].lacks:
        return {name: value for name, value in body.items() if name != "response_format"}
    if dialect == "groq" and not _SCHEMA_AWARE.search(target.model.lower()):
        return {**body, "response_format": {"type": "json_object"}}
    wrapper = form["json_schema"]
    return {
        **body,
        "response_format": {**form, "json_schema": {**wrapper, "schema": _without_lengths(wrapper["schema"])}},
    }


def _without_lengths(schema: Any, *, names: bool = False) -> Any:
    """Leave keywords out at any depth; ``names``: the keys are properties' names, which may be called the same."""
    if isinstance(schema, list):
        return [_without_lengths(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_lengths(value, names=not names and key in {"properties", "$defs"})
        for key, value in schema.items()
        if names or key not in _LENGTHS
    }


def passed_on(ask: Ask, target: Target) -> bytes:
    """Return the body of a call that is passed on as it is, but for its model.

    Raises:
        BackendError: INVALID, it nests deeper than can be written.
    """
    if ask.form is not None:
        return ask.form.with_model(target.model)
    body = {name: value for name, value in ask.body.items() if name not in _SLUICE_FIELDS}
    return encoded(body | {"model": target.model})


def encoded(body: dict[str, Any]) -> bytes:
    """Return a body as bytes.

    Raises:
        BackendError: INVALID, it nests deeper than orjson writes (254), though it reads it.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        message = f"The request body cannot be passed on: {str(error).lower()}."
        raise BackendError(
            Reason.INVALID, message, status=400, type="invalid_request_error", code="invalid_json"
        ) from error


def _message(message: dict[str, Any], quirks: Dialect) -> dict[str, Any]:
    dropped = quirks.message_drop & message.keys()
    developer = message.get("role") == "developer" and not quirks.developer
    if not dropped and not developer:
        return message
    changed = {field: value for field, value in message.items() if field not in dropped}
    if developer:
        changed["role"] = "system"
    return changed


def has_wire(config: BackendConfig, model: str, wire: str) -> bool:
    """Whether a model can be reached over a wire beside the chat's."""
    quirks = DIALECTS[config.dialect]
    if wire in quirks.wires or wire in config.wires:
        return True
    return wire == "completions" and quirks.completers is not None and bool(quirks.completers.search(model))


class Catalog:
    """What is known of targets under one configuration."""

    def __init__(self, settings: Settings, window_of: Callable[[Target], int | None]) -> None:
        self._configs = settings.backend_configs
        self._window_of = window_of

    def lacks(self, target: Target) -> frozenset[str]:
        """Return the abilities that a target is known to lack."""
        config = self._configs[target.backend]
        lacks = DIALECTS[config.dialect].lacks
        return lacks.union(*(own for wire, own in _BY_WIRE.items() if not has_wire(config, target.model, wire)))

    def window(self, target: Target) -> int | None:
        """Return a target's context window in tokens: the operator's word, else the price table's."""
        return self._configs[target.backend].context_window or self._window_of(target)
