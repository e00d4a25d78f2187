"""``/v1/responses``: a chat, dressed as OpenAI's newer wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.api.dress import Dress, Frames
from app.wire.fields import frame
from app.wire.responses_answer import template, to_response, wants_summary
from app.wire.responses_events import ResponseEvents
from app.wire.responses_request import to_chat
from app.wire.usage import usage_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.backend.base import Event
    from app.call import Usage
    from app.dispatch import Answer
    from app.errors import SluiceError


class Responses(Dress):
    """One call of ``/v1/responses``."""

    endpoint = "responses"
    _base: dict[str, Any]
    _summary = False
    _events: ResponseEvents | None = None

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:  # noqa: ARG002 - see Dress
        """Return the chat that the request is.

        Raises:
            CallerError: 400, with the path of what is wrong.
        """
        chat, _needs = to_chat(body)
        self._base, self._summary = template(body, stored=False), wants_summary(body)
        return chat

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return the response."""
        response = to_response(self._base, answer.whole.body, answer.target.model, summary=self._summary)
        return orjson.dumps(response if performance is None else {**response, "performance": performance})

    def framer(self, model: str, *, wants_usage: bool, shows: bool) -> Frames:  # noqa: ARG002 - see Dress
        """Return what turns chunks into this wire's events."""
        self._events = ResponseEvents(self._base, model, summary=self._summary)
        return _Frames(self._events)

    def broken(self, error: SluiceError) -> bytes:
        """Return the events that end a stream with an error."""
        events = self._events or ResponseEvents(self._base, self._base["model"], summary=False)
        return b"".join(map(frame, events.fail(error)))


class _Frames:
    """Writes the events of a response."""

    def __init__(self, events: ResponseEvents) -> None:
        self._events = events

    def frames(self, events: Iterable[Event]) -> bytes:
        return b"".join(frame(told) for each in events for told in self._events.take(each.chunk))

    def rest(self) -> bytes:
        return b""

    def end(self, usage: Usage, performance: dict[str, Any] | None) -> bytes:
        more = None if performance is None else {"performance": performance}
        return b"".join(map(frame, self._events.end(usage_object(usage), more)))
