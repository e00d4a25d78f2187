"""What passes between the event loop and the MLX thread: a job one way, deltas the other. Plain values only."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from app.engine.grammar import Grammar
    from app.engine.sampling import Sampling
    from app.errors import SluiceError


class Delta(NamedTuple):
    """News of one choice.

    Attributes:
        choice: its index.
        text: new text, stop strings taken out.
        tokens: tokens generated so far, end token not counted.
        logprobs: OpenAI's entries for the tokens that came with this text, where asked for.
        finish: ``stop``, ``length`` or None while it goes on.
        error: why this choice failed; it is the last delta then.
        cached: tokens of the prompt that a kept prefix saved.
    """

    choice: int
    text: str
    tokens: int
    logprobs: list[dict[str, Any]] | None
    finish: str | None
    error: SluiceError | None
    cached: int


def failure(choice: int, error: SluiceError) -> Delta:
    """Return the delta that ends a choice with an error."""
    return Delta(choice, "", 0, None, None, error, 0)


class Channel:
    """One request's deltas, in order. Used on the event loop only."""

    def __init__(self) -> None:
        self._items: deque[Delta] = deque()
        self._wake: asyncio.Future[None] | None = None

    def put(self, delta: Delta) -> None:
        """Add a delta and wake the reader."""
        self._items.append(delta)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def take(self) -> list[Delta]:
        """Wait until there is something and return all of it."""
        if not self._items:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        items = list(self._items)
        self._items.clear()
        return items


@dataclass(eq=False, slots=True)
class Job:
    """One request's generation: ``choices`` answers to one prompt.

    Attributes:
        prompt: token ids, never empty.
        max_tokens: of each answer.
        top_logprobs: None for no logprobs, else how many alternatives a token.
        first: index of its first choice, where several jobs answer one request.
        continues: whether the answer goes on in the middle of a text, so that a first space counts.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    grammar: Grammar | None = None
    choices: int = 1
    top_logprobs: int | None = None
    continues: bool = False
    first: int = 0
    channel: Channel = field(default_factory=Channel)
