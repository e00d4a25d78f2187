"""OpenAI's bodies in Ollama's native words, and back. Pure."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.ollama_api import duration

if TYPE_CHECKING:
    from app.config import OllamaOptions

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "num_predict",
}
"""OpenAI's field -> the option of the same meaning: docs/modelfile.mdx#valid-parameters-and-values of Ollama."""
_TRANSLATED = frozenset({*_OPTIONS, "messages", "response_format", "reasoning_effort", "stream_options", "options"})


def native(body: dict[str, Any], options: OllamaOptions) -> dict[str, Any]:
    """Return the body of ``/api/chat``; fields that nobody here knows pass unchanged."""
    asked = {name: value for name, value in body.items() if name not in _TRANSLATED}
    own = body.get("options")
    wanted: dict[str, Any] = {"num_ctx": options.num_ctx}
    wanted |= {name: body[field] for field, name in _OPTIONS.items() if body.get(field) is not None}
    if isinstance(wanted.get("stop"), str):
        wanted["stop"] = [wanted["stop"]]
    asked["options"] = wanted | (own if isinstance(own, dict) else {})
    asked["messages"] = _messages(body["messages"])
    asked["stream"] = body.get("stream") is True
    asked.setdefault("keep_alive", duration(options.keep_alive))
    form = _format(body.get("response_format"))
    if form is not None:
        asked["format"] = form
    if body.get("reasoning_effort") is not None:
        asked["think"] = body["reasoning_effort"] if body["reasoning_effort"] != "none" else False
    return asked


def _format(asked: Any) -> Any:
    if not isinstance(asked, dict):
        return None
    if asked.get("type") == "json_schema":
        return (asked.get("json_schema") or {}).get("schema") or "json"
    return "json" if asked.get("type") == "json_object" else None


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    made = []
    for message in messages:
        one: dict[str, Any] = {"role": message.get("role"), "content": _text(message.get("content"))}
        calls = [_call_in(call, names) for call in message.get("tool_calls") or ()]
        if calls:
            one["tool_calls"] = calls
        if message.get("role") == "tool":
            one["tool_name"] = message.get("name") or names.get(str(message.get("tool_call_id")), "")
        thinking = message.get("reasoning_content") or message.get("reasoning")
        if thinking:
            one["thinking"] = thinking
        made.append(one)
    return made


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _call_in(call: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") or {}
    names[str(call.get("id"))] = name = str(function.get("name"))
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        arguments = {}
    return {"function": {"name": name, "arguments": arguments if isinstance(arguments, dict) else {}}}


def completion(told: dict[str, Any]) -> dict[str, Any]:
    """Return a whole native answer as a chat completion."""
    said = told.get("message") or {}
    message: dict[str, Any] = {"role": "assistant", "content": said.get("content") or None, "refusal": None}
    if said.get("thinking"):
        message["reasoning_content"] = said["thinking"]
    calls = [_call_out(call) for call in said.get("tool_calls") or ()]
    if calls:
        message["tool_calls"] = calls
    else:
        message["content"] = said.get("content") or ""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(told, called=bool(calls))}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": str(told.get("model") or ""),
        "choices": [choice],
        "usage": _usage(told),
    }


class Story:
    """One native stream, told in chunks of one id."""

    def __init__(self, chat_id: str, model: str) -> None:
        self._same = {"id": chat_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._begun = False
        self._calls = 0

    def chunks(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks that one line is."""
        delta = self._delta(told.get("message") or {})
        chunks = []
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **(delta or {"content": ""})}
        if delta:
            chunks.append(self._chunk(delta))
        if told.get("done"):
            chunks.append(self._chunk({}, _finish(told, called=bool(self._calls))))
            chunks.append({**self._same, "choices": [], "usage": _usage(told)})
        return chunks

    def _delta(self, said: dict[str, Any]) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if said.get("thinking"):
            delta["reasoning_content"] = said["thinking"]
        if said.get("content"):
            delta["content"] = said["content"]
        calls = said.get("tool_calls") or ()
        if calls:
            delta["tool_calls"] = [{"index": self._calls + n, **_call_out(call)} for n, call in enumerate(calls)]
            self._calls += len(calls)
        return delta

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._same, "choices": [choice]}


def _call_out(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = orjson.dumps(function.get("arguments") or {}).decode()
    made = str(call.get("id") or f"call_{uuid.uuid4().hex[:24]}")
    return {"id": made, "type": "function", "function": {"name": str(function.get("name")), "arguments": arguments}}


def _finish(told: dict[str, Any], *, called: bool) -> str:
    if called:
        return "tool_calls"
    return "length" if told.get("done_reason") == "length" else "stop"


def _usage(told: dict[str, Any]) -> dict[str, Any]:
    prompt, written = int(told.get("prompt_eval_count") or 0), int(told.get("eval_count") or 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
