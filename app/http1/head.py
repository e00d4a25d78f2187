"""Heads of responses, and whole answers to what is no request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.errors import SluiceError

    Headers = list[tuple[bytes, bytes]]

CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
_COLON = b": ".join


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}
"""Of every response that ends an exchange."""


def joined(headers: Headers) -> bytes:
    """Return headers as lines.

    Raises:
        RuntimeError: one holds a line end or NUL.
    """
    if not headers:
        return b""
    lines = b"\r\n".join(map(_COLON, headers)) + b"\r\n"
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise RuntimeError("A header of a response must not hold a line end.")
    return lines


def ordered(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Headers, dict[bytes, bytes]]:
    """Return any app's headers with small names, and by name; the server alone says whether a body is chunked.

    Raises:
        RuntimeError: they tell of two lengths.
    """
    small = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    kept = [each for each in small if each[0] != b"transfer-encoding"]
    found = dict(kept)
    if sum(name == b"content-length" for name, _ in kept) > 1:
        raise RuntimeError("A response must not have two lengths.")
    if any(name == b"connection" and b"close" in value.lower() for name, value in kept):
        found[b"connection"] = b"close"
    return kept, found


def refusal(error: SluiceError, defaults: Headers) -> bytes:
    """Return a whole response that says what is wrong in OpenAI's shape, after which the connection ends."""
    body = orjson.dumps(error.body())
    told = [*defaults, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return b"".join((STATUS_LINES[error.status], joined(told), CLOSE, b"\r\n", body))
