"""Whether what a backend sent has the shape that everything behind it relies on; anything else is malformed."""

from __future__ import annotations

from typing import Any

_PLAIN = frozenset({"role", "content"})


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


def plain_text(chunk: dict[str, Any]) -> str | None:
    """Return the text of a stream's event that brings nothing but text of its first choice, as nearly every one does.

    Such an event is good, and whoever handles events may take a short way with it.
    """
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or chunk.get("usage") or chunk.get("error") or "x_groq" in chunk:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("index") != 0 or choice.get("finish_reason", "") is not None:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or not delta.keys() <= _PLAIN or choice.get("logprobs"):
        return None
    text = delta.get("content")
    return text if type(text) is str and text else None


def with_text(chunk: dict[str, Any], text: str) -> dict[str, Any]:
    """Return an event that brings nothing but text with another text."""
    (choice,) = chunk["choices"]
    return {**chunk, "choices": [{**choice, "delta": {**choice["delta"], "content": text}}]}


def _good_choice(choice: Any, said: str) -> bool:
    if not isinstance(choice, dict):
        return False
    what, index, finish = choice.get(said), choice.get("index"), choice.get("finish_reason")
    return (
        (what is None or isinstance(what, dict))
        and (index is None or isinstance(index, int))
        and (finish is None or isinstance(finish, str))
    )
