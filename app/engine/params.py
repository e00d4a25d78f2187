"""What a caller's body asks for, checked field by field: a field that cannot be honoured is a 400, never dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from app.engine import chat
from app.engine.errors import invalid, unsupported
from app.engine.sampling import Sampling

# Fields that change nothing about the answer; they are accepted whatever they hold.
_NEUTRAL = {
    "model", "messages", "prompt", "stream", "stream_options", "user", "metadata", "store", "service_tier",
    "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
}  # fmt: skip
_SAMPLING = {
    "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "logit_bias", "n", "stop", "max_tokens", "logprobs",
}  # fmt: skip
_CHAT = {
    *_NEUTRAL, *_SAMPLING, "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice",
    "parallel_tool_calls", "reasoning_effort", "chat_template_kwargs", "modalities", "verbosity",
}  # fmt: skip
_COMPLETION = {*_NEUTRAL, *_SAMPLING, "echo", "suffix", "best_of"}
_MAX_CHOICES = 128  # OpenAI's own limits, here and below
_MAX_LOGPROBS = 20
_MAX_STOPS = 16
_MAX_PROMPTS = 2048


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request.

    Attributes:
        max_tokens: None where the caller set no limit.
        top_logprobs: None for no logprobs.
        schema: a JSON schema to fit, True for any JSON object, None for free text.
        template: further values for the chat template.
        given: the sampling fields that the caller set; the others take the model's own defaults.
    """

    stream: bool
    usage: bool
    sampling: dict[str, Any]
    max_tokens: int | None
    choices: int
    stops: tuple[str, ...]
    top_logprobs: int | None
    messages: list[dict[str, Any]]
    prompts: list[str | list[int]]
    tools: list[dict[str, Any]]
    forced: list[dict[str, Any]]
    schema: Any
    template: dict[str, Any]

    def how(self, defaults: dict[str, Any]) -> Sampling:
        """Return the sampling, with the model makers' recommendations where the caller said nothing."""
        names = ("temperature", "top_p", "top_k", "min_p")
        recommended: dict[str, Any] = {name: defaults[name] for name in names if name in defaults}
        if "repetition_penalty" in defaults:
            recommended["repetition"] = defaults["repetition_penalty"]
        return Sampling(**{**recommended, **self.sampling})


def parse_chat(body: dict[str, Any]) -> Wanted:
    """Check a chat body.

    Raises:
        CallerError: 400, with the field.
    """
    _known(body, _CHAT)
    _only(body, "modalities", [["text"]])
    logprobs = _boolean(body, "logprobs")
    top = _integer(body, "top_logprobs", 0, _MAX_LOGPROBS)
    if top is not None and not logprobs:
        raise invalid("top_logprobs", "needs logprobs to be true")
    tools, forced = _tools(body)
    return _wanted(
        body,
        messages=chat.normalised(body.get("messages")),
        top_logprobs=(top or 0) if logprobs else None,
        max_tokens=_integer(body, "max_completion_tokens", 1) or _integer(body, "max_tokens", 1),
        tools=tools,
        forced=forced,
        schema=_schema(body),
        template=_template(body),
    )


def parse_completion(body: dict[str, Any]) -> Wanted:
    """Check a completion body.

    Raises:
        CallerError: 400, with the field.
    """
    _known(body, _COMPLETION)
    _only(body, "echo", [False])
    _only(body, "suffix", [""])
    _only(body, "best_of", [body.get("n") or 1])
    return _wanted(
        body,
        prompts=_prompts(body.get("prompt")),
        top_logprobs=_integer(body, "logprobs", 0, _MAX_LOGPROBS),
        max_tokens=_integer(body, "max_tokens", 1),
    )


def _wanted(body: dict[str, Any], **rest: Any) -> Wanted:
    options = body.get("stream_options")
    base: dict[str, Any] = {"messages": [], "prompts": [], "tools": [], "forced": [], "schema": None, "template": {}}
    return Wanted(
        stream=_boolean(body, "stream"),
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        sampling=_sampling(body),
        choices=_integer(body, "n", 1, _MAX_CHOICES) or 1,
        stops=_stops(body.get("stop")),
        **{**base, **rest},
    )


def _known(body: dict[str, Any], known: set[str]) -> None:
    for key, value in body.items():
        if key not in known and value is not None:
            raise unsupported(key, "this engine has no such parameter: leave it out")


def _only(body: dict[str, Any], key: str, allowed: list[Any]) -> None:
    if body.get(key) is not None and body[key] not in allowed:
        raise unsupported(key, f"only {allowed[0]!r} is supported here")


def _boolean(body: dict[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise invalid(key, "must be true or false")
    return bool(value)


def _integer(body: dict[str, Any], key: str, low: int, high: int | None = None) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise invalid(key, f"must be an integer of at least {low}" + ("" if high is None else f" and at most {high}"))
    return value


def _number(body: dict[str, Any], key: str, low: float, high: float) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise invalid(key, f"must be a number from {low} to {high}")
    return float(value)


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    found = {
        "temperature": _number(body, "temperature", 0, 2),
        "top_p": _number(body, "top_p", 0, 1),
        "top_k": _top_k(body),
        "min_p": _number(body, "min_p", 0, 1),
        "seed": _integer(body, "seed", -(2**63), 2**64 - 1),
        "presence": _number(body, "presence_penalty", -2, 2),
        "frequency": _number(body, "frequency_penalty", -2, 2),
        "repetition": _number(body, "repetition_penalty", 0.01, 10),
        "bias": _bias(body.get("logit_bias")),
    }
    return {key: value for key, value in found.items() if value is not None}


def _top_k(body: dict[str, Any]) -> int | None:
    """Read top_k, of which -1 and 0 mean off as with other servers; what exceeds the vocabulary is all of it."""
    value = _integer(body, "top_k", -1)
    return None if value is None else max(value, 0)


def _bias(value: Any) -> tuple[tuple[int, float], ...] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid("logit_bias", "must map token ids to numbers")
    pairs = []
    for key, bias in value.items():
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool) and math.isfinite(bias)
        if not str(key).isdecimal() or not number or abs(bias) > 100:  # noqa: PLR2004 - OpenAI's limit
            raise invalid(f"logit_bias.{key}", "must map a token id to a number from -100 to 100")
        pairs.append((int(key), float(bias)))
    return tuple(pairs)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops) or len(stops) > _MAX_STOPS:
        raise invalid("stop", f"must be a string or a list of at most {_MAX_STOPS} strings")
    return tuple(stop for stop in stops if stop)


def _prompts(value: Any) -> list[str | list[int]]:
    """Read OpenAI's four forms: a string, strings, token ids, lists of token ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not value or not all(map(_is_prompt, value)):
        raise invalid("prompt", "must be a string, a list of strings, token ids or lists of token ids, none empty")
    if len(value) > _MAX_PROMPTS:
        raise invalid("prompt", f"at most {_MAX_PROMPTS} prompts at a time")
    return value


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _schema(body: dict[str, Any]) -> Any:
    form = body.get("response_format")
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return True
    if kind != "json_schema":
        raise invalid("response_format.type", "must be text, json_object or json_schema")
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise invalid("response_format.json_schema.schema", "must be a JSON schema object")
    return schema


def _tools(body: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tools to show to the model and those of which one must be called."""
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise invalid("tools", "must be a list")
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(f"tools[{i}]", "must be a function with a name")
    choice = body.get("tool_choice")
    if choice in {None, "auto", "none", "required"} if not isinstance(choice, dict) else False:
        return _by_word(choice, tools)
    return tools, _by_name(choice, tools)


def _by_word(choice: Any, tools: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if choice == "none":
        return [], []
    if choice == "required" and not tools:
        raise invalid("tool_choice", "required needs tools")
    return tools, tools if choice == "required" else []


def _by_name(choice: Any, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    name = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        raise invalid("tool_choice", "must be auto, none, required or the name of one of the tools")
    return named


def _template(body: dict[str, Any]) -> dict[str, Any]:
    extra = body.get("chat_template_kwargs") or {}
    if not isinstance(extra, dict):
        raise invalid("chat_template_kwargs", "must be an object")
    effort = body.get("reasoning_effort")
    if effort is None:
        return extra
    if effort not in {"none", "minimal", "low", "medium", "high", "xhigh", "max"}:
        raise invalid("reasoning_effort", "must be none, minimal, low, medium, high, xhigh or max")
    return {"reasoning_effort": effort, "enable_thinking": effort not in {"none", "minimal"}, **extra}
