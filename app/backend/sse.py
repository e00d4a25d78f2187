"""A sans-I/O decoder of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from app.errors import BackendError, Reason

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""No backend sends events of more than some kB; images inside of deltas may reach a few MB."""


class SSEDecoder:
    """Turns bytes, cut anywhere, into the data of whole events. Ids and event names are dropped.

    Attributes:
        comment: the newest comment that came after all events, without its colon.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = b""
        self._after_cr = False
        self._max = max_event_bytes
        self.comment = b""

    @property
    def between(self) -> bool:
        """Whether the bytes so far end with an event."""
        return not self._buffer and not self._after_cr

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that this chunk completes.

        Raises:
            BackendError: an event grows beyond the bound.
        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._newlines(chunk)
        if b"\n" not in chunk:
            self._buffer += chunk
            self._check()
            return []
        *blocks, self._buffer = (self._buffer + chunk).split(b"\n\n")
        self._check()
        self.comment = blocks[-1][1:].strip() if blocks and blocks[-1].startswith(b":") else b""
        return [data for block in blocks if (data := _data(block)) is not None]

    def flush(self) -> list[bytes]:
        """Return the event that the end of the stream completes, where a backend leaves out the last blank line."""
        block, self._buffer = self._buffer.rstrip(b"\n"), b""
        data = _data(block)
        return [] if data is None else [data]

    def _check(self) -> None:
        if len(self._buffer) > self._max:
            raise BackendError(Reason.TOO_LARGE, f"The backend sent an event of more than {self._max} bytes.")

    def _newlines(self, chunk: bytes) -> bytes:
        """Turn CRLF and CR into LF, also where a CRLF is cut in two."""
        if not chunk:
            return chunk
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [_value(line) for line in block.split(b"\n") if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(lines) if lines else None


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
