"""How many tokens a call will use, judged before it is made. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.route.fit import tokens_of_tools

if TYPE_CHECKING:
    from app.call import Ask

_CHARS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English; other languages take more tokens."""
_USUAL_ANSWER = 4096
"""Tokens that are set aside for an answer whose caller names no limit: most models' own default or more."""
_IMAGE = 1000
"""Tokens of an image: between OpenAI's 765 for a square of 1024 pixels and Anthropic's 1334."""


def prompt_tokens(ask: Ask, judged: int | None = None) -> int:
    """Return about how many tokens a call sends; ``judged`` is the classifier's count of its messages."""
    body = ask.body
    if ask.endpoint != "chat":
        return _tokens(body.get("input"))
    said = judged or sum(_tokens(message.get("content")) for message in body["messages"])
    return said + tokens_of_tools(body)


def _tokens(given: Any) -> int:
    if isinstance(given, str):
        return len(given) // _CHARS_PER_TOKEN + 1
    if not isinstance(given, list):
        return 0
    return sum(
        1 if isinstance(each, int) else _part(each) if isinstance(each, dict) else _tokens(each) for each in given
    )


def _part(part: dict[str, Any]) -> int:
    text = part.get("text")
    return _tokens(text) if isinstance(text, str) else _IMAGE


def answer_tokens(ask: Ask) -> int:
    """Return how many tokens the answer may have."""
    if ask.endpoint != "chat":
        return 0
    limit = ask.body.get("max_completion_tokens") or ask.body.get("max_tokens") or _USUAL_ANSWER
    return int(limit) * int(ask.body.get("n") or 1)
