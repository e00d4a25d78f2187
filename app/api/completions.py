"""``/v1/completions``: prompts, dressed as chats where a target has no such wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from app.api.dress import Dress, Frames
from app.api.frames import DONE, event
from app.backend.base import Whole, apart
from app.call import Native
from app.dispatch import Answer
from app.errors import SluiceError
from app.replay import Replay
from app.tasks.serve import quiet
from app.trace import Trace
from app.wire.completions import Told, own_body, prompts_of, to_chat
from app.wire.usage import usage_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.backend.base import Event
    from app.call import Ask
    from app.gateway import Gateway
    from app.recall import AnyAnswer
    from app.settings import Settings
    from app.tasks.context import Tell
    from app.trace import Usage

_AT_ONCE = 8
"""Prompts of one call that are under way together: one caller's list is not to take every slot."""


class Completions(Dress):
    """One call of ``/v1/completions``."""

    endpoint = "completions"
    _body: dict[str, Any]
    _prompts: list[Any]

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:  # noqa: ARG002 - see Dress
        """Return the chat that the first prompt is.

        Raises:
            CallerError: 400, with the path of what is wrong.
        """
        self._body, self._prompts = body, prompts_of(body)
        self.native = self._native(self._prompts[0])
        return self.native.chat

    def _native(self, prompt: Any) -> Native:
        chat, needs = to_chat(self._body, prompt)
        return Native("completions", own_body(self._body, prompt, needs), chat, needs)

    async def run(self, ask: Ask, settings: Settings, gateway: Gateway, trace: Trace, tell: Tell = quiet) -> AnyAnswer:
        """Serve the call; several prompts are calls of their own, told together once all are answered.

        Raises:
            SluiceError: one of them could not be served.
        """
        if len(self._prompts) == 1:
            return await super().run(ask, settings, gateway, trace, tell)
        gate = asyncio.Semaphore(_AT_ONCE)
        asks = [self._one(ask, prompt) for prompt in self._prompts]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(each, trace, gate)) for each in asks]
        except BaseExceptionGroup as failed:
            errors = failed.subgroup(SluiceError)
            if errors is None:
                raise
            raise _first(errors) from failed
        answer = _together([task.result() for task in tasks])
        return Replay(answer) if ask.stream else answer

    def _one(self, ask: Ask, prompt: Any) -> Ask:
        native = self._native(prompt)
        for name in ("stream", "stream_options"):
            native.chat.pop(name, None)
            native.body.pop(name, None)
        return replace(ask, body=native.chat, native=native)

    async def _answer(self, ask: Ask, trace: Trace, gate: asyncio.Semaphore) -> Answer:
        async with gate:
            own = Trace()
            try:
                found = await super().run(ask, self.settings, self.gateway, own)
            finally:
                trace.attempts += own.attempts
                trace.verdict, trace.plan = trace.verdict or own.verdict, trace.plan or own.plan
        if not isinstance(found, Answer):
            raise TypeError("a plain call got a streamed answer")
        return found

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return the completion."""
        body = self._told(answer.target.model).whole(answer.whole.body)
        return orjson.dumps(body if performance is None else {**body, "performance": performance})

    def _told(self, model: str) -> Told:
        adds = self._body.get("echo") and self.native is not None and "echo_logprobs" not in self.native.needs
        echoed = [prompt if isinstance(prompt, str) else "" for prompt in self._prompts] if adds else []
        return Told(model, echoed, self._body.get("n") or 1)

    def framer(self, model: str, *, wants_usage: bool, shows: bool) -> Frames:  # noqa: ARG002 - see Dress
        """Return what turns chunks into this wire's."""
        return _Frames(self._told(model), wants_usage=wants_usage)


class _Frames:
    """Writes the chunks of a completion."""

    def __init__(self, told: Told, *, wants_usage: bool) -> None:
        self._told = told
        self._wants_usage = wants_usage
        self._usage: dict[str, Any] | None = None

    def frames(self, events: Iterable[Event]) -> bytes:
        return b"".join(self._frame(each.chunk) for each in apart(events))

    def _frame(self, chunk: dict[str, Any]) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        told = self._told.chunk(chunk)
        return b"" if told is None else event(told)

    def rest(self) -> bytes:
        return b""

    def end(self, usage: Usage, performance: dict[str, Any] | None) -> bytes:
        last = self._told.usage(self._usage or usage_object(usage))
        if performance is not None:
            last["performance"] = performance
        wanted = self._wants_usage or performance is not None
        return (event(last) if wanted else b"") + DONE


def _first(failed: BaseExceptionGroup[SluiceError]) -> SluiceError:
    """Return the first of several errors, which is what the caller is told."""
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _together(answers: list[Answer]) -> Answer:
    """Unite the answers of several prompts: choices are numbered through, usage is summed."""
    bodies = [answer.whole.body for answer in answers]
    choices: list[dict[str, Any]] = []
    for body in bodies:
        choices += [{**choice, "index": len(choices) + place} for place, choice in enumerate(body["choices"])]
    body = {**bodies[0], "choices": choices}
    usages = [each["usage"] for each in bodies if each.get("usage")]
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    if usages:
        body["usage"] = {name: sum(usage.get(name) or 0 for usage in usages) for name in names}
    return Answer(answers[0].target, Whole(b"", body))
