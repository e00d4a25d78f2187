"""Whether what a backend sent has the shape that everything behind it relies on; anything else is malformed."""

from __future__ import annotations

from typing import Any


def good_answer(endpoint: str, body: dict[str, Any]) -> bool:
    """Whether a plain answer has what its endpoint promises."""
    if endpoint == "embeddings":
        return isinstance(body.get("data"), list)
    choices = body.get("choices")
    return isinstance(choices, list) and bool(choices) and all(_good_choice(each, "message") for each in choices)


def good_chunk(chunk: dict[str, Any]) -> bool:
    """Whether the choices of a stream's event, where it has any, are choices."""
    choices = chunk.get("choices")
    if choices is None or choices == []:
        return True
    return isinstance(choices, list) and all(_good_choice(each, "delta") for each in choices)


def _good_choice(choice: Any, said: str) -> bool:
    return (
        isinstance(choice, dict)
        and isinstance(choice.get(said), dict | None)
        and isinstance(choice.get("index"), int | None)
        and isinstance(choice.get("finish_reason"), str | None)
    )
