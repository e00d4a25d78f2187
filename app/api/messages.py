"""``/v1/messages``: a chat, dressed as Anthropic's wire, for its SDK and Claude Code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.api.dress import Dress, Frames
from app.api.told import NamedFrames
from app.call import Native
from app.wire.fields import frame
from app.wire.messages_answer import MessageEvents, error_of, to_message
from app.wire.messages_request import to_chat

if TYPE_CHECKING:
    from app.api.respond import HeaderList
    from app.dispatch import Answer
    from app.errors import SluiceError

_WIRE_HEADERS = ("anthropic-version", "anthropic-beta")
_PING = frame({"type": "ping"})


class Messages(Dress):
    """One call of ``/v1/messages``."""

    endpoint = "messages"
    keep_alive = _PING

    async def chat(self, body: dict[str, Any], tenant: str) -> dict[str, Any]:  # noqa: ARG002 - see Dress
        """Return the chat that the request is.

        Raises:
            CallerError: 400, with the path of what is wrong.
        """
        chat, needs = to_chat(body)
        self.native = Native("messages", body, chat, needs, self._wire_headers())
        return chat

    def _wire_headers(self) -> tuple[tuple[str, str], ...]:
        """Return the caller's headers that belong to the wire."""
        told = ((name, self.sent.get(name.encode(), b"").decode("latin-1")) for name in _WIRE_HEADERS)
        return tuple((name, value) for name, value in told if value)

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return the message."""
        message = answer.whole.native or to_message(answer.whole.body, answer.target.model)
        return orjson.dumps(message if performance is None else {**message, "performance": performance})

    def framer(self, model: str, *, wants_usage: bool, shows: bool) -> Frames:  # noqa: ARG002 - see Dress
        """Return what turns chunks into this wire's events."""
        return NamedFrames(MessageEvents(model))

    def error(self, error: SluiceError) -> dict[str, Any]:
        """Return the body of an error."""
        return error_of(error, self.request_id)

    def broken(self, error: SluiceError) -> bytes:
        """Return the event that ends a stream with an error."""
        return frame(self.error(error))

    def headers(self) -> HeaderList:
        """Return the request id under the name that this wire's clients read."""
        return [(b"request-id", self.request_id.encode())]
