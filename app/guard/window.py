"""A rolling window of calls and failures, in bounded memory."""

from __future__ import annotations


class Window:
    """Calls and failures of the last ``width_s * buckets`` seconds, in two integers a bucket whatever the traffic."""

    __slots__ = ("_at", "_calls", "_end", "_failures", "_width_s", "calls", "failures")

    def __init__(self, width_s: float, buckets: int, now: float) -> None:
        self._width_s = width_s
        self._calls = [0] * buckets
        self._failures = [0] * buckets
        self.clear(now)

    def clear(self, now: float) -> None:
        """Forget everything; the first bucket starts now."""
        self._calls[:] = self._failures[:] = [0] * len(self._calls)
        self.calls = self.failures = self._at = 0
        self._end = now + self._width_s

    def add(self, now: float, failed: bool) -> None:
        """Count one call that ended now."""
        if now >= self._end:
            self.advance(now)
        self.calls += 1
        self._calls[self._at] += 1
        if failed:
            self.failures += 1
            self._failures[self._at] += 1

    def advance(self, now: float) -> None:
        """Let the buckets that are too old fall out."""
        if now < self._end:
            return
        steps = int((now - self._end) / self._width_s) + 1
        for _ in range(min(steps, len(self._calls))):
            self._at = (self._at + 1) % len(self._calls)
            self.calls -= self._calls[self._at]
            self.failures -= self._failures[self._at]
            self._calls[self._at] = self._failures[self._at] = 0
        self._end += steps * self._width_s
