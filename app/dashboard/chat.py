"""One chat call as the playground makes it: the answer as it comes, and at the end what it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from app.dashboard.gateway import TroubleError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    import httpx

    from app.dashboard.gateway import Gateway

_PATH = "/v1/chat/completions"
_ALL = "message"
_CODE_LIMIT = 200_000
"""Characters of an answer that are shown; the rest is read and counted, not shown."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: ``complexity`` is 1 to 10, or empty for the classifier's."""

    text: str
    model: str = "auto"
    complexity: str = ""
    stream: bool = True

    def body(self) -> dict[str, Any]:
        """Return the call's body."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": self.text}]}
        return body | ({"stream": True, "stream_options": {"include_usage": True}} if self.stream else {})

    def headers(self) -> dict[str, str]:
        """Return the call's headers, as those of ``POST /v1/route``."""
        return {"x-sluice-performance": "true"} | ({"x-sluice-complexity": self.complexity} if self.complexity else {})


@dataclass(slots=True)
class Said:
    """What has come so far.

    Attributes:
        performance: Sluice's own account of the call, with the last chunk.
        first_ms: until the first text came here; total_ms: until the end.
        thought: reasoning, where the model shows any.
    """

    text: str = ""
    thought: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    performance: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    first_ms: float | None = None
    total_ms: float | None = None

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        return self.total_ms is not None


async def chat(gateway: Gateway, prompt: Prompt) -> AsyncGenerator[Said]:
    """Send a prompt; yield the same ``Said`` whenever there is more of it.

    Raises:
        TroubleError: it was refused, or it broke in the middle.
    """
    began = time.monotonic()
    said = Said()
    async with gateway.stream(_PATH, prompt.body(), prompt.headers()) as answer:
        said.headers = {name: value for name, value in answer.headers.items() if name.startswith("x-")}
        yield said
        if prompt.stream:
            async for event in _events(answer):
                if _take(said, event) and said.first_ms is None:
                    said.first_ms = (time.monotonic() - began) * 1000
                yield said
        else:
            _take(said, orjson.loads(await answer.aread()))
    said.total_ms = (time.monotonic() - began) * 1000
    yield said


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the stream's events; it must end as a stream does.

    Raises:
        TroubleError: it ended with an error, or without its end.
    """
    async for line in answer.aiter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            event = orjson.loads(line[6:])
            if event.get("error"):
                raise TroubleError(str(event["error"].get("message", "The stream ended with an error.")))
            yield event
    raise TroubleError("The stream ended without its end.")


def _take(said: Said, event: Mapping[str, Any]) -> bool:
    """Add an event, or a whole body, to what was said; return whether it held text."""
    said.performance = event.get("performance") or said.performance
    said.usage = event.get("usage") or said.usage
    choices = event.get("choices") or [{}]
    part = choices[0].get("delta") or choices[0].get(_ALL) or {}
    text, thought = part.get("content") or "", part.get("reasoning_content") or part.get("reasoning") or ""
    said.text = (said.text + text)[:_CODE_LIMIT]
    said.thought = (said.thought + thought)[:_CODE_LIMIT]
    return bool(text or thought)
