"""The items of a response: what an assistant's message is made of on that wire."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from app.wire.fields import Json, new_id, reasoning_of

_SEAL = "sluice.1."
"""Begins ``encrypted_content`` that was written here: a backend's signed thinking, to go back to it unchanged."""


def message_item(content: list[Json], status: str = "completed", item_id: str | None = None) -> Json:
    """Return an item that holds what the assistant said."""
    return {
        "id": item_id or new_id("msg_"),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def text_part(text: str, logprobs: list[Json]) -> Json:
    """Return a part of a message that is text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(text: str) -> Json:
    """Return a part of a message that is a refusal."""
    return {"type": "refusal", "refusal": text}


def call_item(call: Json, status: str = "completed", item_id: str | None = None) -> Json:
    """Return an item that is a tool call."""
    function = call.get("function") or {}
    item = {
        "id": item_id or new_id("fc_"),
        "type": "function_call",
        "status": status,
        "call_id": call.get("id") or new_id("call_"),
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "",
    }
    return item | ({"extra_content": call["extra_content"]} if call.get("extra_content") else {})


def reasoning_item(text: str, blocks: list[Json], *, summary: bool, item_id: str | None = None) -> Json:
    """Return an item that is reasoning, as a summary where the caller asked for one."""
    item: Json = {"id": item_id or new_id("rs_"), "type": "reasoning", "summary": [], "content": []}
    if text:
        kind = ("summary", "summary_text") if summary else ("content", "reasoning_text")
        item[kind[0]] = [{"type": kind[1], "text": text}]
    if blocks:
        item["encrypted_content"] = sealed(blocks)
    return item


def sealed(blocks: list[Json]) -> str:
    """Return signed thinking as the opaque string that clients send back."""
    return _SEAL + base64.b64encode(orjson.dumps(blocks)).decode()


def opened(content: Any) -> list[Json]:
    """Return the signed thinking in what a client sent back; nothing where another wrote it."""
    if not isinstance(content, str) or not content.startswith(_SEAL):
        return []
    try:
        blocks = orjson.loads(base64.b64decode(content.removeprefix(_SEAL), validate=True))
    except ValueError:
        return []
    return [each for each in blocks if isinstance(each, dict)] if isinstance(blocks, list) else []


def items_of(message: Json, logprobs: Json | None, *, summary: bool) -> list[Json]:
    """Return a chat message's items, in the order in which a model writes them."""
    items = []
    thought, blocks = reasoning_of(message), message.get("thinking_blocks") or []
    if thought or blocks:
        items.append(reasoning_item(thought, blocks, summary=summary))
    parts = []
    if message.get("content"):
        parts.append(text_part(text_of(message["content"]), probable(logprobs)))
    if message.get("refusal"):
        parts.append(refusal_part(message["refusal"]))
    calls = message.get("tool_calls") or []
    if parts or not (calls or items):
        items.append(message_item(parts))
    return items + [call_item(call) for call in calls]


def text_of(content: Any) -> str:
    """Return the text of a chat message's content, a string or parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def probable(logprobs: Json | None) -> list[Json]:
    """Translate a choice's log probabilities."""
    entries = (logprobs or {}).get("content") or []
    return [
        {
            "token": each["token"],
            "logprob": each["logprob"],
            "bytes": each.get("bytes") or [],
            "top_logprobs": [{**top, "bytes": top.get("bytes") or []} for top in each.get("top_logprobs") or ()],
        }
        for each in entries
    ]
