"""Who is logged in, and who tries too often. Kept in memory: a restart asks for the key again."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE_S = 12 * 3600.0
"""A working day, after which the key is asked for again."""
_MOST = 1000
_TRIES = 5
_REST_S = 60.0
"""Five wrong keys a minute from one address: guessing 128 bits at that pace is hopeless, mistyping is not punished."""


class Sessions:
    """Sessions by their token's digest: what is kept here opens no door.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[bytes, tuple[float, bytes]] = {}

    def open(self, key: str) -> str:
        """Begin a session with the key in force, and return its token."""
        now = self._clock()
        self._open = {digest: each for digest, each in self._open.items() if each[0] > now}
        while len(self._open) >= _MOST:
            del self._open[next(iter(self._open))]
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = (now + LIFE_S, _digest(key))
        return token

    def valid(self, token: str, key: str) -> bool:
        """Say whether a token's session is open; one that was opened with another key is not."""
        ends_at, opened_with = self._open.get(_digest(token), (0.0, b""))
        return ends_at > self._clock() and hmac.compare_digest(opened_with, _digest(key))

    def close(self, token: str) -> None:
        """End a session."""
        self._open.pop(_digest(token), None)


class Tries:
    """Counts wrong keys per address, over a minute.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, list[float]] = {}

    def wait_s(self, address: str) -> float:
        """Return the seconds until the address may try again; 0 where it may now."""
        recent = self._recent(address)
        return 0.0 if len(recent) < _TRIES else recent[-_TRIES] + _REST_S - self._clock()

    def failed(self, address: str) -> None:
        """Note a wrong key."""
        if len(self._failed) >= _MOST:
            del self._failed[next(iter(self._failed))]
        self._failed[address] = [*self._recent(address), self._clock()][-_TRIES:]

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - _REST_S
        return [at for at in self._failed.get(address, ()) if at > since]


def same(one: str, other: str) -> bool:
    """Compare two keys in a time that tells nothing of them."""
    return hmac.compare_digest(_digest(one), _digest(other))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
