"""What every backend offers: a whole answer, or a stream of events. One method each, so that wires can be swapped."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from app.backend.shape import plain_text, with_text
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from app.call import Ask, Target
    from app.config import BackendConfig
    from app.trace import Trace

    Take = Callable[["Event"], bool]


class Event:
    """One event of a stream in OpenAI's shape: the decoded chunk, and the bytes it came as.

    Events that arrived together and differ in nothing but their text may be one: ``raw`` then has all of them.

    Attributes:
        texts: of the first choice, one for each event, where that is all that they bring; else empty.
        like: a chunk that is the same but for its text; where ``texts`` is empty, the chunk itself.
    """

    __slots__ = ("like", "raw", "texts")

    def __init__(self, raw: bytes, like: dict[str, Any], texts: list[str] | None = None) -> None:
        self.raw = raw
        self.like = like
        if texts is None:
            text = plain_text(like)
            texts = [] if text is None else [text]
        self.texts = texts

    @property
    def chunk(self) -> dict[str, Any]:
        """Return the chunk, the first where there are several; see :func:`apart`."""
        return with_text(self.like, self.texts[0]) if self.texts else self.like


def apart(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events one by one, for whoever looks into each chunk."""
    for event in events:
        if len(event.texts) <= 1:
            yield event
            continue
        for raw, text in zip(event.raw[:-2].split(b"\n\n"), event.texts, strict=True):
            yield Event(raw + b"\n\n", event.like, [text])


@value
class Whole:
    """A plain answer: the backend's bytes and the same decoded.

    ``native`` is the answer as it came, where that was on the caller's own wire; then ``body`` is it as a chat's.
    """

    raw: bytes
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    native: dict[str, Any] | None = None


class EventStream(Protocol):
    """A stream that has begun: pull it batch by batch, and close it whatever happens."""

    @property
    def whole(self) -> bool:
        """Whether the backend said that the stream is complete (``[DONE]`` or its wire's equivalent)."""

    @property
    def malformed(self) -> int:
        """How many events were no JSON and were skipped."""

    @property
    def waits(self) -> bool:
        """Whether the backend's newest word is that it has not begun: then no time limit of the answer runs."""

    async def batch(self) -> list[Event]:
        """Return every event that has arrived, at least one; an empty list once the stream has ended.

        Raises:
            BackendError: the backend said so, or the connection broke.
        """

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive while :meth:`batch` waits to ``take``, each alone.

        It says whether it took the event; what it did not take, ``batch`` returns.
        """

    def finish(self) -> None:
        """Say that nothing more is wanted of a whole answer, so that its connection may be used again."""

    def close(self) -> None:
        """Close the connection at once; harmless when repeated."""


class Backend(Protocol):
    """A place that answers."""

    config: BackendConfig
    always_ready: bool
    """Whether ``prepare`` has nothing to do."""

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:
        """Get a target ready that is not always there: a model to load, a machine to wake. Most need nothing.

        Called before each attempt, outside of the limits of an answer. ``deadline`` is the call's, on the event loop's
        clock; ``alone`` says that no other candidate is left, so that waiting is better than nothing.

        Raises:
            BackendError: it cannot be made ready, or not in time.
        """

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call and return the answer.

        Raises:
            BackendError: with the reason.
        """

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> EventStream:
        """Send a streamed call and return once the response's headers say that it begins.

        Raises:
            BackendError: with the reason.
        """
