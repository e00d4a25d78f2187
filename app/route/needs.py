"""Which abilities a call needs that some backends lack. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from app.endpoints import RELAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIELD_OF = {
    "schema": "response_format",
    "vision": "messages",
    "image_url": "messages",
    "audio": "messages",
    "token_ids": "input",
    "file": "messages",
    "builtin_tools": "tools",
    "server_tools": "tools",
    "token_prompt": "prompt",
    "echo_logprobs": "echo",
}
"""The body's field that asks for an ability, where it has another name."""


def needs_of(endpoint: str, body: dict[str, Any]) -> frozenset[str]:
    """Return the abilities that a call needs; an endpoint beside chat is one itself."""
    if endpoint == "chat":
        return needs(body)
    return _embedding_needs(body) if endpoint == "embeddings" else frozenset({endpoint} & RELAYS.keys())


def _embedding_needs(body: dict[str, Any]) -> frozenset[str]:
    found = {"embeddings"}
    given = body.get("input")
    if isinstance(given, list) and not isinstance(given[0], str):
        found.add("token_ids")
    if body.get("dimensions") is not None:
        found.add("dimensions")
    return frozenset(found)


def needs(body: dict[str, Any]) -> frozenset[str]:
    """Return the abilities that a chat body needs."""
    found = set()
    if (body.get("n") or 1) != 1:
        found.add("n")
    if body.get("logprobs") or body.get("top_logprobs"):
        found.add("logprobs")
    if body.get("logit_bias"):
        found.add("logit_bias")
    if body.get("tools") or body.get("functions"):
        found.add("tools")
        if body.get("tool_choice") not in (None, "auto"):
            found.add("tool_choice")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        found.add("schema")
    return frozenset(found.union(_content_needs(body.get("messages") or ())))


def _content_needs(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    lists = (message["content"] for message in messages if isinstance(message.get("content"), list))
    for part in itertools.chain.from_iterable(lists):
        if part.get("type") == "image_url":
            yield "vision"
            if not str((part.get("image_url") or {}).get("url", "")).startswith("data:"):
                yield "image_url"
        elif part.get("type") == "input_audio":
            yield "audio"
        elif part.get("type") == "file":
            yield "file"
