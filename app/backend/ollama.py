"""Ollama: its OpenAI endpoint with a word of warning, or its own ``/api/chat``, told in OpenAI's events.

The native endpoint takes a context size with each call, says what went wrong in mid-stream (its OpenAI endpoint just
ends), and tells in nanoseconds how long it loaded, read the prompt and wrote.
https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import Event, Whole
from app.backend.catalog import adapt, encoded
from app.backend.http import endpoint_url
from app.backend.ollama_api import DEFAULT_CONTEXT, Lines, OllamaApi, seconds
from app.backend.ollama_body import Story, completion, native
from app.backend.openai_http import HttpEventStream, OpenAIBackend
from app.config import OllamaOptions
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.backend.http import Client, Reply
    from app.call import Ask, Target
    from app.config import BackendConfig
    from app.trace import Trace

log = logging.getLogger("sluice")
_CHARS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English text; good enough to warn by."""
_WARN_EVERY_S = 600.0
_warned: dict[str, float] = {}


class OllamaBackend(OpenAIBackend):
    """An Ollama, spoken to over its OpenAI endpoint or natively.

    Args:
        loads: whether a model is loaded before its first call; whoever prepares it in other ways does that itself.
    """

    def __init__(
        self,
        config: BackendConfig,
        client: Client,
        max_answer_bytes: int,
        headers: Mapping[str, str] | None = None,
        *,
        loads: bool = True,
    ) -> None:
        super().__init__(config, client, max_answer_bytes, headers)
        self._options = config.ollama or OllamaOptions()
        root = config.base_url.removesuffix("/v1")
        own = {name: value for name, value in self._headers.items() if name != "accept"}
        self.api = OllamaApi(client, root, own, config.name)
        self.always_ready = not (self._options.native and loads)
        if self._options.native:
            self._urls["chat"] = endpoint_url(root, "/api/chat")
        self._used: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:  # noqa: ARG002 - the protocol's
        """Load a model that has not been used lately; once for all who wait.

        Raises:
            BackendError: it cannot be loaded.
        """
        if self.always_ready or self._warm(target.model):
            return
        task = self._loading.get(target.model)
        if task is None:
            task = self._loading[target.model] = asyncio.create_task(self._load(target.model))
            task.add_done_callback(lambda done: self._loaded(target.model, done))
        await asyncio.wait({task}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not task.done():
            raise BackendError(Reason.DEADLINE, f"{target} was not loaded before the call's deadline.", status=504)
        error = task.exception()
        if isinstance(error, BackendError):
            raise BackendError(error.reason, error.message, status=error.status, type=error.type, code=error.code)
        if error is not None:
            raise error

    def _warm(self, model: str) -> bool:
        return time.monotonic() - self._used.get(model, float("-inf")) < seconds(self._options.keep_alive) / 2

    async def _load(self, model: str) -> None:
        await self.api.load(model, self._options.keep_alive, self._options.load_s)
        self._used[model] = time.monotonic()

    def _loaded(self, model: str, task: asyncio.Task[None]) -> None:
        del self._loading[model]
        if not task.cancelled():
            task.exception()  # whoever waited was told

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call and return the answer."""
        self._watch(target, body)
        whole = await super().whole(ask, target, body, trace)
        self._used[target.model] = time.monotonic()
        return whole

    async def _whole(self, endpoint: str, body: dict[str, Any], trace: Trace) -> Whole:
        if not self._options.native or endpoint != "chat":
            return await super()._whole(endpoint, body, trace)
        _, told = await self._answer(endpoint, native(body, self._options), trace)
        if not told.get("done"):
            raise BackendError(Reason.CUT, f"{self.config.name} ended its answer early.", code="incomplete_answer")
        share_durations(trace, told)
        try:
            answer = completion(told)
        except (AttributeError, TypeError, ValueError) as error:
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered something unreadable.") from error
        return Whole(orjson.dumps(answer), answer)

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> HttpEventStream:
        """Send a streamed call."""
        self._watch(target, body)
        if not self._options.native or ask.endpoint != "chat":
            return await super().stream(ask, target, body, trace)
        asked = native(adapt(body, target, self.config.dialect), self._options)
        exchange = await self._post("chat", encoded(asked), self._stream_headers, trace)
        self._used[target.model] = time.monotonic()
        return NativeStream(exchange, self, self._max_answer_bytes, target.model, trace)

    def _watch(self, target: Target, body: dict[str, Any]) -> None:
        """Warn of a prompt that Ollama will cut: it does so without a word."""
        if self._options.native or self.config.context_window is not None:
            return
        messages = body.get("messages") or ()
        tokens = sum(len(str(message.get("content") or "")) for message in messages) // _CHARS_PER_TOKEN
        now = time.monotonic()
        if tokens > DEFAULT_CONTEXT and now - _warned.get(str(target), float("-inf")) > _WARN_EVERY_S:
            _warned[str(target)] = now
            log.warning(
                "%s was sent a prompt of about %d tokens, and an Ollama keeps %d by default and cuts the rest: set "
                "OLLAMA_NATIVE=true and OLLAMA_NUM_CTX, or start it with OLLAMA_CONTEXT_LENGTH and say so in "
                "BACKENDS__%s__CONTEXT_WINDOW",
                *(target, tokens, DEFAULT_CONTEXT, target.backend.replace("-", "_").upper()),
            )


class NativeStream(HttpEventStream):
    """The lines of a native answer, as OpenAI's events."""

    def __init__(self, exchange: Reply, backend: OllamaBackend, max_bytes: int, model: str, trace: Trace) -> None:
        super().__init__(exchange, backend, max_bytes)
        self._lines = Lines()
        self._story = Story(f"chatcmpl-{uuid.uuid4().hex}", model)
        self._trace = trace

    def _decoded(self, data: bytes) -> list[Event]:
        """Return the events of every line that has arrived; an error is raised once those before it are delivered."""
        events: list[Event] = []
        for told in self._lines.feed(data) if data else self._lines.flush():
            if told.get("error"):
                self._failure = self._backend.event_error(told)
                break
            events += self._events_of(told)
            if told.get("done"):
                self.whole = self._ended = True
                self._trace.stage("stream" if "first_token" in self._trace.stages else "first_token")
                share_durations(self._trace, told)
                break
        self.malformed += self._lines.skipped()
        return events

    def _events_of(self, told: dict[str, Any]) -> list[Event]:
        try:
            chunks = self._story.chunks(told)
        except (AttributeError, TypeError, ValueError):
            self.malformed += 1
            return []
        return [Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk) for chunk in chunks]


def share_durations(trace: Trace, told: dict[str, Any]) -> None:
    """Give what an answer says of its own times to the stages load, prompt and decode, out of those that waited.

    The stages go on adding up to the total: no more is moved than was waited.
    """
    for name, stage, waits in (
        ("load_duration", "load", ("first_token", "answer")),
        ("prompt_eval_duration", "prompt", ("first_token", "answer")),
        ("eval_duration", "decode", ("stream", "answer", "first_token")),
    ):
        left = told.get(name)
        left = left if isinstance(left, int) and left > 0 else 0
        for wait in waits:
            taken = min(left, trace.stages.get(wait, 0))
            if taken:
                trace.stages[wait] -= taken
                trace.stages[stage] = trace.stages.get(stage, 0) + taken
                left -= taken
