"""What the text events of a stream have in common, so that most need not be parsed: all but the text is the same."""

from __future__ import annotations

from typing import Any

import orjson

from app.backend.base import Event
from app.backend.shape import plain_text, with_text

_MOST_TRIES = 4
"""Events that are looked at for what is the same in all: the first of a stream often has a form of its own, and some
backends put something new into each."""
_NOTHING = b"\n\n"
_NAMES = (b'"content":', b'"content": ')


class Mould:
    """Learns the bytes before and after the text of a stream's events, and reads events that have the same.

    Where nothing but the inside of a JSON string differs, nothing but that string differs once parsed.
    """

    __slots__ = ("_begin", "_end", "_like", "_prefix", "_suffix", "_tries")

    def __init__(self) -> None:
        self._prefix = self._suffix = _NOTHING
        self._begin = self._end = b""  # of an event on its way
        self._like: dict[str, Any] = {}
        self._tries = 0

    def fits(self, data: bytes) -> bool:
        """Tell whether an event looks as if it differed from what was learned by its text alone."""
        return data.startswith(self._prefix) and data.endswith(self._suffix)

    def learn(self, data: bytes, event: Event) -> None:
        """Look at an event that brings nothing but text, and was parsed as nothing else was known that fits."""
        if self._tries >= _MOST_TRIES:
            return
        self._tries += 1
        for name in _NAMES:
            before, found, after = data.partition(name + orjson.dumps(event.texts[0]))
            if found and _is_its_place(before + name, after, event):
                self._prefix, self._suffix, self._like = before + name + b'"', b'"' + after, event.like
                self._begin, self._end = b"data: " + self._prefix, self._suffix + b"\n\n"
                return

    def only(self, data: bytes) -> Event | None:
        """Return the event that these bytes of the stream are, where they are just one that fits, and a plain one.

        That is how the events of most streams arrive: one by one.
        """
        begin, end = self._begin, self._end
        if not (self._like and data.startswith(begin) and data.endswith(end)):
            return None
        inside = data[len(begin) : -len(end)]
        if not inside or b'"' in inside or b"\\" in inside:
            return None
        try:
            text = inside.decode()
        except UnicodeDecodeError:
            return None
        return Event(data, self._like, [text]) if text.isprintable() else None

    def event(self, payloads: list[bytes]) -> Event | None:
        """Return events that fit as one event; None where one of them is no JSON or has no text."""
        begin, end = len(self._prefix), -len(self._suffix)
        texts = _texts([data[begin:end] for data in payloads])
        if texts is None or not self._like:
            return None
        raw = b"data: " + b"\n\ndata: ".join(payloads) + b"\n\n"
        return Event(raw, self._like, texts)


def _is_its_place(before: bytes, after: bytes, event: Event) -> bool:
    """Tell whether a string between these bytes is the event's text, and changes nothing else."""
    (text,) = event.texts
    try:
        chunk = orjson.loads(before + orjson.dumps(text + "x") + after)
    except orjson.JSONDecodeError:
        return False
    return plain_text(chunk) == text + "x" and with_text(chunk, text) == event.like


def _texts(inside: list[bytes]) -> list[str] | None:
    """Return the strings, given what stands between their quotes; None where one is empty or no JSON."""
    joined = b'","'.join(inside)
    try:
        if b"\\" in joined or joined.count(b'"') != 2 * (len(inside) - 1):  # quotes of their own, or broken ones
            texts = [orjson.loads(b'"%b"' % each) for each in inside]
        else:
            texts = orjson.loads(b'["%b"]' % joined)
    except orjson.JSONDecodeError:
        return None
    return texts if all(texts) else None
