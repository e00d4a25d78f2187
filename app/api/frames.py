"""A stream's events as the caller gets them: one identity, the role first, usage only if asked. Sans I/O."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import apart
from app.wire.usage import usage_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.backend.base import Event
    from app.trace import Usage

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def event(data: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def comment(data: Any) -> bytes:
    """Return a comment, which clients leave out."""
    return b": " + orjson.dumps(data) + b"\n\n"


class Framer:
    """Turns a backend's events into the caller's. Bytes that need no change are relayed as they came.

    Where something is to be added to the last data chunk, each is held back until the next one has come.
    """

    def __init__(self, model: str, *, wants_usage: bool, holds_last: bool) -> None:
        self._model = model
        self._wants_usage = wants_usage
        self._holds_last = holds_last
        self._identity: tuple[Any, Any, Any] | None = None
        self._good: dict[str, Any] | None = None
        self._begun: set[int] = set()
        self._usage_seen = False
        self._back: dict[str, Any] | None = None

    def frames(self, events: Iterable[Event]) -> bytes:
        """Return the bytes to send for these events; may be empty."""
        out = [each.raw if self.needs_nothing(each) else self._framed(each) for each in events]
        return out[0] if len(out) == 1 else b"".join(out)

    def _framed(self, each: Event) -> bytes:
        return b"".join(map(self._frame, apart((each,))))

    def needs_nothing(self, each: Event) -> bool:
        """Tell in one look whether an event in the middle of an answer is as it should be, as nearly every one is."""
        if not each.texts or self._holds_last or 0 not in self._begun:
            return False
        chunk = each.like
        if chunk is not self._good:
            identity = (chunk.get("id"), chunk.get("created"), chunk.get("model"))
            if identity != self._identity or chunk.get("object") != "chat.completion.chunk":
                return False
            self._good = chunk
        return True

    def _frame(self, each: Event) -> bytes:
        chunk = each.chunk
        choices = chunk.get("choices")
        if not choices and chunk.get("usage"):
            self._usage_seen = True
            if not self._wants_usage:
                return b""
        elif not choices and self._identity is None:
            return b""  # e.g. Azure's prompt_filter_results before the first chunk
        fixed = self._fixed(chunk, choices or [])
        if fixed is None:
            return b""
        if self._holds_last:
            return self._held(fixed)
        return each.raw if fixed is chunk else event(fixed)

    def _held(self, chunk: dict[str, Any]) -> bytes:
        """Hold this chunk back and let the one before it go."""
        before, self._back = self._back, chunk
        return b"" if before is None else event(before)

    def rest(self) -> bytes:
        """Return the chunk that was held back, where there is one: the stream breaks."""
        back, self._back = self._back, None
        return b"" if back is None else event(back)

    def _fixed(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the chunk, changed only where it must be; None where nothing of it is left."""
        if self._identity is None:
            self._identity = (
                chunk.get("id") or f"chatcmpl-{time.time_ns():x}",
                chunk.get("created") or int(time.time()),
                chunk.get("model") or self._model,
            )
        changes: dict[str, Any] = {}
        identity = (chunk.get("id"), chunk.get("created"), chunk.get("model"))
        if identity != self._identity:
            changes["id"], changes["created"], changes["model"] = self._identity
        if chunk.get("object") != "chat.completion.chunk":
            changes["object"] = "chat.completion.chunk"
        if choices and (fixed := self._fixed_choices(choices)) is not choices:
            if not fixed:
                return None
            changes["choices"] = fixed
        return {**chunk, **changes} if changes else chunk

    def _fixed_choices(self, choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(choices) == 1:
            one = self._fixed_choice(choices[0])
            return choices if one is choices[0] else [] if one is None else [one]
        fixed = [self._fixed_choice(choice) for choice in choices]
        if all(new is old for new, old in zip(fixed, choices, strict=True)):
            return choices
        return [choice for choice in fixed if choice is not None]

    def _fixed_choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        index = choice.get("index")
        delta = choice.get("delta")
        if index in self._begun:
            if delta is not None and "role" in delta and _only_role(delta) and not choice.get("finish_reason"):
                return None
            if delta is not None and "finish_reason" in choice:
                return choice
        elif index is not None and delta is not None and delta.get("role") and "finish_reason" in choice:
            self._begun.add(index)
            return choice
        return self._completed(choice, index or 0, delta or {})

    def _completed(self, choice: dict[str, Any], index: int, delta: dict[str, Any]) -> dict[str, Any]:
        """Fill in what OpenAI's schema requires."""
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **{name: value for name, value in delta.items() if name != "role"}}
        return {**choice, "index": index, "delta": delta, "finish_reason": choice.get("finish_reason")}

    def _usage_chunk(self, usage: Usage) -> bytes:
        """Return the usage chunk where the caller wants one and the backend sent none; an estimate says so."""
        if not self._wants_usage or self._usage_seen or self._identity is None:
            return b""
        chunk = {
            "id": self._identity[0],
            "object": "chat.completion.chunk",
            "created": self._identity[1],
            "model": self._identity[2],
            "choices": [],
            "usage": usage_object(usage),
        }
        return self._held(chunk) if self._holds_last else event(chunk)

    def end(self, usage: Usage, performance: dict[str, Any] | None = None) -> bytes:
        """Return what is left to send, with the performance object in the last data chunk, and ``[DONE]``."""
        said = self._usage_chunk(usage)
        if self._back is not None and performance is not None:
            self._back = {**self._back, "performance": performance}
        return said + self.rest() + DONE


def _only_role(delta: dict[str, Any]) -> bool:
    return not any(value for name, value in delta.items() if name != "role")
