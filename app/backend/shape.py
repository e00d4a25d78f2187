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
    if not isinstance(choices, list):
        return False
    if len(choices) == 1:
        return _good_choice(choices[0], "delta")
    return all(_good_choice(each, "delta") for each in choices)


def _good_choice(choice: Any, said: str) -> bool:
    if not isinstance(choice, dict):
        return False
    what, index, finish = choice.get(said), choice.get("index"), choice.get("finish_reason")
    return (
        (what is None or isinstance(what, dict))
        and (index is None or isinstance(index, int))
        and (finish is None or isinstance(finish, str))
    )
