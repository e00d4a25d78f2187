"""The shapes in which a call can come and be answered. The pipeline sees chats; a dress is what the caller sees.

One object a call. The base class is the chat itself, whose bytes need no translation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from app.api import embeddings, respond
from app.api.frames import KEEP_ALIVE, Framer, event
from app.tasks.serve import quiet, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.api.respond import HeaderList
    from app.backend.base import Event
    from app.call import Ask, Native
    from app.dispatch import Answer
    from app.errors import SluiceError
    from app.gateway import Gateway
    from app.recall import AnyAnswer
    from app.settings import Settings
    from app.tasks.context import Tell
    from app.trace import Trace, Usage


class Frames(Protocol):
    """Turns a stream's events into the caller's."""

    def frames(self, events: Iterable[Event]) -> bytes:
        """Return the bytes to send for these events; may be empty."""

    def rest(self) -> bytes:
        """Return what was held back: the stream breaks."""

    def end(self, usage: Usage, performance: dict[str, Any] | None) -> bytes:
        """Return what is left to send at the end of a whole answer."""


class Dress:
    """The chat's own shape; the others override what differs.

    Attributes:
        endpoint: as records and metrics name it.
        kind: what the pipeline is to do: ``chat`` or ``embeddings``.
        keep_alive: what is sent into a silence.
        native: the caller's own body, for targets that have its wire.
        keeps: whether ``keep`` has something to do.
    """

    endpoint = "chat"
    kind = "chat"
    keep_alive = KEEP_ALIVE
    native: Native | None = None
    keeps = False

    def __init__(self, settings: Settings, gateway: Gateway, request_id: str, sent: Mapping[bytes, bytes]) -> None:
        """Take what there is before the body has come; ``sent`` are the request's headers."""
        self.settings = settings
        self.gateway = gateway
        self.request_id = request_id
        self.sent = sent

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:  # noqa: ARG002 - others ask for it
        """Return the body that the pipeline works on.

        Raises:
            CallerError: the body is wrong.
        """
        return body

    async def run(self, ask: Ask, settings: Settings, gateway: Gateway, trace: Trace, tell: Tell = quiet) -> AnyAnswer:
        """Serve the call; ``tell`` is told the progress of a task.

        Raises:
            SluiceError: what the caller is to be told.
        """
        return await serve(ask, settings, gateway, trace, tell)

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return a whole answer's body: the backend's bytes, or, where something is to be added, the same anew."""
        whole = answer.whole
        body = respond.completed(whole.body, answer.target.model)
        if performance is not None:
            body = {**body, "performance": performance}
        return whole.raw if body is whole.body else orjson.dumps(body)

    def framer(self, model: str, *, wants_usage: bool, shows: bool) -> Frames:
        """Return what turns the events of a stream; ``shows`` says that the performance object is to be added."""
        return Framer(model, wants_usage=wants_usage, holds_last=shows)

    async def keep(self) -> None:
        """Keep what the caller may ask for later, before the end of the answer is told."""

    def error(self, error: SluiceError) -> dict[str, Any]:
        """Return the body of an error."""
        return error.body()

    def broken(self, error: SluiceError) -> bytes:
        """Return the event that ends a stream with an error."""
        return event(error.body())

    def headers(self) -> HeaderList:
        """Return headers that every answer has in this shape."""
        return []


class Embeddings(Dress):
    """Vectors, which no stream brings."""

    endpoint = "embeddings"
    kind = "embeddings"
    _form: str | None = None

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:  # noqa: ARG002 - the base class's
        """Return the body as it is; remember the form in which vectors are asked for."""
        self._form = body.get("encoding_format")
        return body

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return a whole answer's body.

        Raises:
            BackendError: it holds something that is no vector.
        """
        whole = answer.whole
        body = embeddings.finished(whole.body, answer.target.model, self._form)
        if performance is not None:
            body = {**body, "performance": performance}
        return whole.raw if body is whole.body else orjson.dumps(body)
