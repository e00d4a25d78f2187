"""What has been said so far in an answer: fed chunk by chunk, asked by rescue, checks, usage and records."""

from __future__ import annotations

import time
from typing import Any, Protocol

from app.trace import Usage
from app.usage import read_usage

_INEXACT = ("refusal", "tool_calls", "function_call", "audio", "thinking_blocks", "native")
"""Content that cannot be told again exactly: another answer has other ids."""
_CONTENT = ("content", "reasoning_content", "reasoning", *_INEXACT)


class Heard(Protocol):
    """What a transcript looks at in an event; app/backend/base.py has the event."""

    texts: list[str]

    @property
    def chunk(self) -> dict[str, Any]:
        """The decoded event."""


class Transcript:
    """The state of one streamed answer as the caller has it.

    Attributes:
        text: pieces of choice 0's content, in order.
        reasoning: pieces of choice 0's reasoning.
        exact: whether the answer could be told again exactly: one choice, nothing but text and reasoning.
        finish: the finish_reason by choice.
        contents: chunks that brought content; about the number of tokens.
        first_ns, last_ns: when the first and the last content came, on ``time.perf_counter_ns``'s clock.
    """

    __slots__ = ("_raw_usage", "choices", "contents", "exact", "finish", "first_ns", "last_ns", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.exact = True
        self.choices: set[int] = set()
        self.finish: dict[int, str] = {}
        self.contents = 0
        self.first_ns = 0
        self.last_ns = 0
        self._raw_usage: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether every choice that began has a finish_reason."""
        return bool(self.finish) and self.choices <= self.finish.keys()

    @property
    def usage_known(self) -> bool:
        """Whether the backend has told its usage."""
        return self._raw_usage is not None

    @property
    def committed(self) -> bool:
        """Whether there is content, or a whole answer without any."""
        return self.contents > 0 or self.finished

    def hear(self, event: Heard) -> None:
        """Add one event of a stream, which may be several that bring nothing but text of the first choice.

        Raises:
            AttributeError, TypeError: a part of it is not of the type that it should be.
        """
        if not event.texts:
            self.take(event.chunk)
            return
        self._stamp(len(event.texts))
        self.choices.add(0)
        self.text += event.texts

    def take(self, chunk: dict[str, Any]) -> None:
        """Add one chunk.

        Raises:
            AttributeError, TypeError: a part of it is not of the type that it should be.
        """
        groq = chunk.get("x_groq")
        usage = chunk.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
        if isinstance(usage, dict):
            self._raw_usage = usage
        for choice in chunk.get("choices") or ():
            self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        index = 0 if index is None else index
        self.choices.add(index)
        delta = choice.get("delta")
        delta = {} if delta is None else delta
        if index or choice.get("logprobs"):
            self.exact = False
        if any(delta.get(name) for name in _CONTENT):
            self._take_content(delta)
        reason = choice.get("finish_reason")
        if reason:
            self.finish[index] = reason

    def _stamp(self, contents: int = 1) -> None:
        self.last_ns = time.perf_counter_ns()
        self.first_ns = self.first_ns or self.last_ns
        self.contents += contents

    def _take_content(self, delta: dict[str, Any]) -> None:
        self._stamp()
        content = delta.get("content")
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(content, str) and content:
            self.text.append(content)
        elif isinstance(reasoning, str) and reasoning:
            self.reasoning.append(reasoning)
        else:
            self.exact = False
        if (content and reasoning) or any(delta.get(name) for name in _INEXACT):
            self.exact = False

    def usage(self, prompt_estimate: int = 0) -> Usage:
        """Return the backend's usage, or an estimate that says it is one."""
        found = read_usage(self._raw_usage)
        return found or Usage(prompt=prompt_estimate, completion=self.contents, estimated=True)

    def per_token_ms(self) -> float | None:
        """Return the mean time between two content chunks, in milliseconds."""
        if self.contents < 2:  # noqa: PLR2004 - a mean of gaps needs a gap
            return None
        return (self.last_ns - self.first_ns) / (self.contents - 1) / 1e6
