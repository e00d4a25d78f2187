"""A chat completion as a response, with every key that OpenAI's schema requires."""

from __future__ import annotations

import time
from typing import Any

from app.wire.fields import Json, kept, new_id
from app.wire.responses_items import items_of

_ECHOED: tuple[tuple[str, Any], ...] = (
    ("background", False),
    ("instructions", None),
    ("max_output_tokens", None),
    ("max_tool_calls", None),
    ("metadata", {}),
    ("parallel_tool_calls", True),
    ("previous_response_id", None),
    ("temperature", 1.0),
    ("tool_choice", "auto"),
    ("top_logprobs", 0),
    ("top_p", 1.0),
    ("truncation", "disabled"),
)
"""What a response repeats of its request, and OpenAI's defaults."""
_ECHOED_IF_THERE = ("user", "safety_identifier", "prompt_cache_key", "service_tier")
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""The finish_reasons of an answer that is not complete, and what a response calls them."""


def template(body: Json, *, stored: bool) -> Json:
    """Return what a response repeats of its request, before there is an answer."""
    repeated = {name: default if body.get(name) is None else body[name] for name, default in _ECHOED}
    reasoning = body.get("reasoning") or {}
    return {
        "id": new_id("resp_") + new_id(""),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": body.get("model") or "auto",
        "output": [],
        **repeated,
        **kept(body, _ECHOED_IF_THERE),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": stored,
        "text": {"format": {"type": "text"}, **kept(body.get("text") or {}, ("format", "verbosity"))},
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
    }


def own_fields(base: Json) -> Json:
    """Return what of a response is Sluice's word, whoever wrote the rest."""
    return {name: base[name] for name in ("store", "previous_response_id")}


def _tool(tool: Json) -> Json:
    return {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool


def wants_summary(body: Json) -> bool:
    """Whether reasoning is to be told as a summary, because the caller asked for one."""
    reasoning = body.get("reasoning") or {}
    return bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def to_response(base: Json, completion: Json, model: str, *, summary: bool) -> Json:
    """Translate a whole answer.

    Args:
        base: what ``template`` returned for the request.
        completion: a chat completion.
        model: who answered, where the completion does not say.
        summary: whether reasoning is told as a summary.
    """
    choice = completion["choices"][0]
    output = items_of(choice.get("message") or {}, choice.get("logprobs"), summary=summary)
    response = {**base, "model": completion.get("model") or model, "output": output}
    return ended(response, choice.get("finish_reason"), completion.get("usage"))


def ended(response: Json, finish: str | None, usage: Json | None) -> Json:
    """Return a response with its end: status and usage."""
    reason = _INCOMPLETE.get(finish or "")
    if reason is None:
        response = {**response, "status": "completed", "completed_at": int(time.time())}
    else:
        response = {**response, "status": "incomplete", "incomplete_details": {"reason": reason}}
    return {**response, "usage": usage_of(usage)} if usage else response


def usage_of(told: Json) -> Json:
    """Translate a chat's usage."""
    prompt, completion = told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0
    read = told.get("prompt_tokens_details") or {}
    spent = told.get("completion_tokens_details") or {}
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": read.get("cached_tokens") or 0,
            "cache_write_tokens": read.get("cache_write_tokens") or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": spent.get("reasoning_tokens") or 0},
        "total_tokens": prompt + completion,
    }
