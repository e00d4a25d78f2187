"""``/v1/responses``: a chat, dressed as OpenAI's newer wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.api.dress import Dress, Frames
from app.api.history import History, store_of
from app.api.told import NamedFrames
from app.call import Native
from app.wire.fields import frame
from app.wire.responses_answer import own_fields, template, to_response, wants_summary
from app.wire.responses_events import ResponseEvents
from app.wire.responses_request import to_chat

if TYPE_CHECKING:
    from app.dispatch import Answer
    from app.errors import SluiceError


class Responses(Dress):
    """One call of ``/v1/responses``."""

    endpoint = "responses"
    _base: dict[str, Any]
    _response: dict[str, Any]
    _history: History
    _summary = False
    _events: ResponseEvents | None = None

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:
        """Return the chat that the request is.

        Raises:
            CallerError: 400, with the path of what is wrong.
        """
        self._history = history = History(store_of(self.gateway, self.settings), tenant, self.settings)
        await history.read(body)
        chat, needs = to_chat(history.body)
        self._base, self._summary = template(body, stored=history.stores), wants_summary(body)
        self.keeps = history.stores
        self.native = Native("responses", history.body, chat, needs)
        return chat

    async def keep(self) -> None:
        """Keep the response, before its end is told: the caller may go on from it at once."""
        await self._history.keep(self._events.response if self._events is not None else self._response)

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return the response."""
        whole = answer.whole
        if whole.native is not None:
            response = {**whole.native, **own_fields(self._base)}
        else:
            response = to_response(self._base, whole.body, answer.target.model, summary=self._summary)
        self._response = response
        return orjson.dumps(response if performance is None else {**response, "performance": performance})

    def framer(self, model: str, *, wants_usage: bool, shows: bool) -> Frames:  # noqa: ARG002 - see Dress
        """Return what turns chunks into this wire's events."""
        self._events = ResponseEvents(self._base, model, summary=self._summary)
        return NamedFrames(self._events)

    def broken(self, error: SluiceError) -> bytes:
        """Return the events that end a stream with an error."""
        events = self._events or ResponseEvents(self._base, self._base["model"], summary=False)
        return b"".join(map(frame, events.fail(error)))
