"""A chat's request as one of Anthropic's ``/v1/messages``.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from app.wire.fields import Json, kept
from app.wire.responses_items import text_of

NO_SAMPLING = "2026-10-21"
"""From this version on, the wire refuses temperature, top_p and top_k: platform.claude.com/docs/en/api/versioning"""
SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_SYSTEM = frozenset({"system", "developer"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_BUDGETED = re.compile(r"claude-3-7|claude-(opus|sonnet|haiku)-4(-[0-5])?(-2\d{7})?$|claude-4-")
"""Models that think within a budget of tokens; later ones set the depth by effort."""
_THOUGHTLESS = re.compile(r"claude-(3-[05]|3-(opus|sonnet|haiku)|2|instant)")
_BUDGETS = {"low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
_LEAST_BUDGET = 1024
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_JSON_ONLY = "Answer with a JSON object only: no other text, no code fence."
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def to_messages(chat: Json, model: str, *, version: str, max_tokens: int) -> Json:
    """Translate a chat's request.

    Args:
        chat: the chat; left as it is.
        model: the model's name at the backend.
        version: the ``anthropic-version`` that is spoken.
        max_tokens: the limit where the chat has none.
    """
    system, messages = _split(chat.get("messages") or [])
    limit = chat.get("max_completion_tokens") or chat.get("max_tokens") or max_tokens
    made: Json = {"model": model, "max_tokens": limit, "messages": messages}
    if version < NO_SAMPLING:
        made |= {name: chat[name] for name in SAMPLING if chat.get(name) is not None}
    made |= kept(chat, ("stream", "cache_control"))
    if chat.get("stop"):
        made["stop_sequences"] = [chat["stop"]] if isinstance(chat["stop"], str) else chat["stop"]
    if chat.get("user"):
        made["metadata"] = {"user_id": chat["user"]}
    _shape(made, chat, system)
    if system:
        made["system"] = system
    return made | _tools(chat) | _thinking(made, chat, model)


def _shape(made: Json, chat: Json, system: list[Json]) -> None:
    """Ask for the form of the answer: a schema has a field, JSON of any shape has to be said in words."""
    form = chat.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {}
        made["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif form.get("type") == "json_object":
        system.append({"type": "text", "text": _JSON_ONLY})


def _thinking(made: Json, chat: Json, model: str) -> Json:
    """Translate the effort; ``thinking`` itself passes as it is, for who knows this wire."""
    if isinstance(chat.get("thinking"), dict):
        return {"thinking": chat["thinking"]}
    effort = chat.get("reasoning_effort")
    if effort is None or _THOUGHTLESS.search(model):
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if _BUDGETED.search(model):
        budget = min(_BUDGETS.get(effort, _LEAST_BUDGET), made["max_tokens"] // 2)
        fits = budget >= _LEAST_BUDGET and _may_think(chat)
        return {"thinking": {"type": "enabled", "budget_tokens": budget}} if fits else {}
    config = {**made.get("output_config", {}), "effort": _EFFORTS.get(effort, "medium")}
    return ({} if _forced(chat) else {"thinking": {"type": "adaptive"}}) | {"output_config": config}


def _forced(chat: Json) -> bool:
    """Whether a tool must be called, which goes with no thinking on this wire."""
    return bool(chat.get("tools")) and chat.get("tool_choice") not in (None, "auto", "none")


def _may_think(chat: Json) -> bool:
    """Whether thinking within a budget is taken: not in the middle of tool use that began without it."""
    calls = [message for message in chat["messages"] if message.get("tool_calls")]
    return not _forced(chat) and all(message.get("thinking_blocks") for message in calls)


# -- tools -------------------------------------------------------------------------------------------------------------


def _tools(chat: Json) -> Json:
    functions = [tool.get("function") or {} for tool in chat.get("tools") or ()]
    functions += chat.get("functions") or []
    if not functions:
        return {}
    caches = [tool.get("cache_control") for tool in chat.get("tools") or ()]
    tools = [_tool(each, cache) for each, cache in zip(functions, [*caches, *[None] * len(functions)], strict=False)]
    return {"tools": tools} | _chosen(chat)


def _tool(function: Json, cache: Any) -> Json:
    tool = kept(function, ("name", "description", "strict"))
    tool["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    return tool | ({"cache_control": cache} if cache else {})


def _chosen(chat: Json) -> Json:
    choice = chat.get("tool_choice")
    if isinstance(choice, dict):
        found: Json = {"type": "tool", "name": (choice.get("function") or {}).get("name")}
    else:
        found = {"type": _CHOICES.get(choice or "auto", "auto")}
    if chat.get("parallel_tool_calls") is False and found["type"] != "none":
        found["disable_parallel_tool_use"] = True
    return {} if found == {"type": "auto"} else {"tool_choice": found}


# -- messages ----------------------------------------------------------------------------------------------------------


def _split(messages: list[Json]) -> tuple[list[Json], list[Json]]:
    """Return the system's blocks and the turns; turns of one role are one, as this wire wants them."""
    system: list[Json] = []
    turns: list[Json] = []
    for message in messages:
        if message.get("role") in _SYSTEM:
            system += _content(message.get("content"))
            continue
        role, blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant":
        _trim(turns[-1]["content"])
    return system, turns


def _trim(blocks: list[Json]) -> None:
    """Take white space from the end of an answer that is to be gone on with: this wire refuses it."""
    if blocks and blocks[-1]["type"] == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()
        if not blocks[-1]["text"]:
            blocks.pop()


def trimmed(chat: Json) -> str:
    """Return the white space that the prefill at the end of a chat loses."""
    last = (chat.get("messages") or [{}])[-1]
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return ""
    text = text_of(last.get("content"))
    return text[len(text.rstrip()) :]


def _blocks(message: Json) -> tuple[str, list[Json]]:
    role = message.get("role")
    if role in {"tool", "function"}:
        call_id = message.get("tool_call_id") or message.get("name") or ""
        result: Json = {"type": "tool_result", "tool_use_id": call_id, "content": _content(message.get("content"))}
        return "user", [result]
    if role != "assistant":
        return "user", _content(message.get("content"))
    blocks = [dict(block) for block in message.get("thinking_blocks") or ()]
    blocks += _content(message.get("content") or message.get("refusal"))
    return "assistant", blocks + [_use(call) for call in message.get("tool_calls") or ()]


def _use(call: Json) -> Json:
    function = call.get("function") or {}
    try:
        told = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        told = function.get("arguments")
    arguments = told if isinstance(told, dict) else {"arguments": told}
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments}


def _content(content: Any) -> list[Json]:
    """Translate content; texts that are empty are left out, which this wire refuses."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = [_block(part) for part in content or ()]
    return [block for block in blocks if block is not None and block.get("text") != ""]


def _block(part: Json) -> Json | None:
    kind = part.get("type")
    if kind == "image_url":
        block: Json = {"type": "image", "source": _source((part.get("image_url") or {}).get("url") or "")}
    elif kind == "file":
        file = part.get("file") or {}
        block = {"type": "document", "source": _source(file.get("file_data") or ""), **_title(file)}
    elif kind in {"text", "refusal"}:
        block = {"type": "text", "text": part.get(kind) or ""}
    else:
        block = dict(part)  # not a chat's: whoever sends it knows this wire
    return block | kept(part, ("cache_control",))


def _title(file: Json) -> Json:
    return {"title": file["filename"]} if file.get("filename") else {}


def _source(url: str) -> Json:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found.group(1), "data": found.group(2)}
