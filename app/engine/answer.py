"""One generation request from lease to last byte: streamed or whole."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.engine import wire
from app.engine.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.engine.chat import Piece, Splitter
    from app.engine.jobs import Delta
    from app.engine.model import Model
    from app.engine.models import Keeper
    from app.engine.params import Wanted
    from app.engine.prepare import Prepared
    from app.engine.reply import Reply
    from app.engine.runner import Runner
    from app.engine.settings import EngineSettings
    from app.engine.thread import MlxThread

    Wire = wire.ChatWire | wire.TextWire


@dataclass(slots=True)
class _Choice:
    """One answer as it comes together."""

    splitter: Splitter
    pieces: list[Piece] = field(default_factory=list)
    logprobs: list[dict[str, Any]] | None = None
    finish: str | None = None
    tokens: int = 0
    cached: int = 0
    reasoning: int = 0

    def take(self, delta: Delta) -> list[Piece]:
        """Take news and return the new pieces."""
        pieces = self.splitter.feed(delta.text)
        if delta.finish is not None:
            pieces += self.splitter.flush()
            called = self.splitter.calls and delta.finish == "stop"
            self.finish = "tool_calls" if called else delta.finish
        if any(piece.kind == "reasoning" for piece in pieces):
            self.reasoning += delta.tokens - self.tokens
        self.tokens, self.cached = delta.tokens, max(self.cached, delta.cached)
        return pieces


class Answers:
    """Runs generation requests."""

    def __init__(self, keeper: Keeper, thread: MlxThread, settings: EngineSettings) -> None:
        self._keeper, self._thread, self._settings = keeper, thread, settings

    async def answer(self, model: Model, wanted: Wanted, form: Wire, reply: Reply) -> None:
        """Answer a request; streams get comments while the model is fetched, loaded or reads a long prompt.

        Raises:
            SluiceError: nothing has been sent yet and the request failed.
        """
        with reply.kept_alive(self._settings.keepalive_s, lambda: state_line(model)) if wanted.stream else _nothing():
            async with self._keeper.lease(model) as runner, self._running(runner, wanted) as prepared:
                if wanted.stream:
                    await self._stream(prepared, wanted, form, reply)
                else:
                    await self._whole(prepared, form, reply)

    @contextlib.asynccontextmanager
    async def _running(self, runner: Runner, wanted: Wanted) -> AsyncIterator[Prepared]:
        """Submit the jobs, and cancel what still runs when the block ends, however it ends."""
        prepared = await prepare(runner, wanted, self._settings)
        self._thread.post(lambda: runner.submit(*prepared.jobs))
        try:
            yield prepared
        finally:
            self._thread.post(lambda: runner.cancel(*prepared.jobs))

    async def _stream(self, prepared: Prepared, wanted: Wanted, form: Wire, reply: Reply) -> None:
        choices = [_Choice(prepared.splitter()) for _ in range(prepared.choices)]
        left = len(choices)
        while left:
            events = b""
            for delta in await prepared.channel.take():
                if delta.error is not None:
                    if events:
                        await reply.send(events)
                    raise delta.error
                choice = choices[delta.choice]
                pieces = choice.take(delta)
                left -= choice.finish is not None
                if pieces or choice.finish or delta.logprobs:
                    events += form.chunks(delta.choice, pieces, delta.logprobs, choice.finish)
            if events and left:
                await reply.send(events)
        if wanted.usage:
            events += form.usage_chunk(_usage(prepared, choices))
        await reply.send(events + wire.DONE, more=False)

    async def _whole(self, prepared: Prepared, form: Wire, reply: Reply) -> None:
        choices = [_Choice(prepared.splitter()) for _ in range(prepared.choices)]
        left = len(choices)
        while left:
            for delta in await prepared.channel.take():
                if delta.error is not None:
                    raise delta.error
                choice = choices[delta.choice]
                choice.pieces += choice.take(delta)
                if delta.logprobs is not None:
                    choice.logprobs = (choice.logprobs or []) + delta.logprobs
                left -= choice.finish is not None
        done = [form.choice(i, c.pieces, c.logprobs, c.finish or "stop") for i, c in enumerate(choices)]
        await reply.json(form.whole(done, _usage(prepared, choices)))


def _nothing() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _usage(prepared: Prepared, choices: list[_Choice]) -> dict[str, Any]:
    """Return the usage: like OpenAI, the prompt counts once however many choices were asked for."""
    first = [job.first for job in prepared.jobs]
    return wire.usage(
        prepared.prompt_tokens,
        sum(choice.tokens for choice in choices),
        sum(choices[i].cached for i in first),
        sum(choice.reasoning for choice in choices),
    )


def state_line(model: Model) -> str:
    """Return in a few words how far a model is."""
    if model.state == "downloading":
        return f"downloading {model.progress.done} of {model.progress.total} bytes"
    if model.state == "loading":
        return f"loading {model.fraction:.0%}"
    return "working" if model.state == "ready" else "waiting"


async def gone(receive: Any) -> None:
    """Return when the client has left."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
