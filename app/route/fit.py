"""Fitting a conversation into a context window: system and the newest turn stay, the oldest turns go. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

Message = dict[str, Any]
_KEPT = frozenset({"system", "developer"})
ANSWER_TOKENS = 1024
"""Room for the answer where the call does not say how long it may become."""


def room_for_answer(body: dict[str, Any]) -> int:
    """Return the tokens that the answer may take."""
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    return asked if isinstance(asked, int) else ANSWER_TOKENS


def tokens_of_tools(body: dict[str, Any]) -> int:
    """Return about how many tokens the definitions of tools take: four characters of JSON make one."""
    return sum(len(orjson.dumps(body[name])) // 4 for name in ("tools", "functions") if body.get(name))


def fit(
    messages: list[Message], budget: int, tokens: Callable[[list[Message]], int]
) -> tuple[list[Message], int] | None:
    """Drop the oldest turns until the rest fits.

    A turn is a user message and all that follows up to the next: an answer never stands without its question, a tool's
    result never without the call.

    Args:
        messages: the conversation.
        budget: tokens that the messages may take.
        tokens: estimates the tokens of messages.

    Returns:
        The messages that are left and the number of turns dropped; None where not even the newest turn fits.
    """
    turns = _turns(messages)
    kept = [message for message in messages if message.get("role") in _KEPT]
    left = budget - tokens(kept)
    sizes = [tokens(turn) for turn in turns]
    first = len(turns)
    while first > 0 and sizes[first - 1] <= left:
        first -= 1
        left -= sizes[first]
    if first == len(turns):
        return None
    dropped = {id(message) for turn in turns[:first] for message in turn}
    return [message for message in messages if id(message) not in dropped], first


def _turns(messages: list[Message]) -> list[list[Message]]:
    turns: list[list[Message]] = []
    for message in messages:
        if message.get("role") in _KEPT:
            continue
        if not turns or (message.get("role") == "user" and turns[-1][-1].get("role") != "user"):
            turns.append([])
        turns[-1].append(message)
    return turns
