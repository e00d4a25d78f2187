"""OpenAI's responses as a chat's answers: whole ones, and the events of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.wire.fields import Json

_FINISHES = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATUSES = {"rate_limit_exceeded": 429, "invalid_prompt": 400}


def to_completion(response: Json) -> Json:
    """Translate a whole response."""
    said: Json = {"role": "assistant", "content": None, "refusal": None}
    for item in response.get("output") or ():
        _take_item(said, item)
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _finish(response, said)}
    return {**_head(response), "object": "chat.completion", "choices": [choice], "usage": _usage(response)}


def _head(response: Json) -> Json:
    return {
        "id": response.get("id") or "",
        "created": int(response.get("created_at") or 0),
        "model": response.get("model") or "",
    }


def _take_item(said: Json, item: Json) -> None:
    kind = item.get("type")
    if kind == "message":
        for part in item.get("content") or ():
            name = "refusal" if part.get("type") == "refusal" else "content"
            said[name] = (said[name] or "") + (part.get("refusal") or part.get("text") or "")
    elif kind == "reasoning":
        parts = item.get("content") or item.get("summary") or ()
        thought = "\n\n".join(part.get("text") or "" for part in parts)
        if thought:
            said["reasoning_content"] = thought
    elif kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        said.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})


def _finish(response: Json, said: Json) -> str:
    if response.get("status") == "incomplete":
        return _FINISHES.get((response.get("incomplete_details") or {}).get("reason") or "", "length")
    return "tool_calls" if said.get("tool_calls") else "stop"


def _usage(response: Json) -> Json:
    told = response.get("usage") or {}
    prompt, completion = told.get("input_tokens") or 0, told.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": told.get("input_tokens_details") or {},
        "completion_tokens_details": told.get("output_tokens_details") or {},
    }


class ResponseChunks:
    """Turns the events of a response into a chat's chunks, one each. A state machine without I/O.

    Attributes:
        whole: whether the response has ended.
    """

    def __init__(self) -> None:
        self.whole = False
        self._head: Json = {}
        self._calls: dict[int, int] = {}
        self._takers: dict[str, Callable[[Json], Json]] = {
            "response.created": self._start,
            "response.output_item.added": self._item,
            "response.output_text.delta": lambda event: self._chunk({"content": event["delta"]}),
            "response.refusal.delta": lambda event: self._chunk({"refusal": event["delta"]}),
            "response.reasoning_text.delta": lambda event: self._chunk({"reasoning_content": event["delta"]}),
            "response.reasoning_summary_text.delta": lambda event: self._chunk({"reasoning_content": event["delta"]}),
            "response.function_call_arguments.delta": self._arguments,
            "response.completed": self._end,
            "response.incomplete": self._end,
        }

    def take(self, event: Json) -> Json:
        """Return the chunk that an event is; empty where a chat has none."""
        taker = self._takers.get(event.get("type") or "")
        return {} if taker is None else taker(event)

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "choices": [choice]}

    def _start(self, event: Json) -> Json:
        self._head = {**_head(event["response"]), "object": "chat.completion.chunk"}
        return self._chunk({"role": "assistant", "content": ""})

    def _item(self, event: Json) -> Json:
        item = event["item"]
        kind = item.get("type")
        if kind == "function_call":
            number = self._calls[event["output_index"]] = len(self._calls)
            function = {"name": item["name"], "arguments": ""}
            call = {"index": number, "id": item["call_id"], "type": "function", "function": function}
            return self._chunk({"tool_calls": [call]})
        return {} if kind in {"message", "reasoning"} else self._chunk({"native": True})

    def _arguments(self, event: Json) -> Json:
        number = self._calls.get(event["output_index"], 0)
        return self._chunk({"tool_calls": [{"index": number, "function": {"arguments": event["delta"]}}]})

    def _end(self, event: Json) -> Json:
        self.whole = True
        response = event["response"]
        said: Json = {"tool_calls": True} if self._calls else {}
        return {**self._chunk({}, _finish(response, said)), "usage": _usage(response)}


def error_in(event: Json) -> tuple[Json, int] | None:
    """Return the error that an event is, with the status it would have had as a response; None where it is none."""
    kind = event.get("type")
    if kind == "error":
        told: Any = event.get("error") or event
    elif kind == "response.failed":
        told = (event.get("response") or {}).get("error") or {}
    else:
        return None
    told = told if isinstance(told, dict) else {"message": str(told)}
    code = told.get("code")
    error = {name: told.get(name) for name in ("message", "param")} | {"code": code}
    return {"error": error}, _STATUSES.get(str(code), 502)
