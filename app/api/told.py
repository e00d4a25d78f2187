"""Streams on wires that name their events, as the caller gets them: Responses and Messages alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.backend.base import apart
from app.backend.native import NativeEvent
from app.wire.fields import frame
from app.wire.usage import usage_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.backend.base import Event
    from app.trace import Usage
    from app.wire.messages_answer import MessageEvents
    from app.wire.responses_events import ResponseEvents


class NamedFrames:
    """Writes the events of a response or a message."""

    def __init__(self, events: MessageEvents | ResponseEvents) -> None:
        self._events = events

    def frames(self, events: Iterable[Event]) -> bytes:
        """Return the bytes to send for these events; may be empty."""
        return b"".join(frame(told) for each in apart(events) for told in self._told(each))

    def _told(self, event: Event) -> Iterable[dict[str, Any]]:
        return self._events.relay(event.told) if isinstance(event, NativeEvent) else self._events.take(event.chunk)

    def rest(self) -> bytes:
        """Return nothing: no event is held back."""
        return b""

    def end(self, usage: Usage, performance: dict[str, Any] | None) -> bytes:
        """Return the events that end the stream, with the performance object in the last where it is wanted."""
        more = None if performance is None else {"performance": performance}
        return b"".join(map(frame, self._events.end(usage_object(usage), more)))
