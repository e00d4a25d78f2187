"""Stop strings in a text that arrives in pieces. No I/O, no tokens: text in, text out."""

from __future__ import annotations


class StopMatcher:
    """Finds the first stop string in a stream of text and holds back what might become one.

    The text that comes out of all ``feed`` calls plus ``flush`` is the whole text up to the earliest occurrence of any
    stop string, however the text was cut into pieces.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """Take more text and return what is safe to show; after a hit it is always empty."""
        if self.hit:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        cut = self._first(text)
        if cut >= 0:
            self.hit, self._held = True, ""
            return text[:cut]
        keep = self._partial(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what is still held back; call it once, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> int:
        """Return where the stop string that was complete first begins, or -1.

        Completed first, not begun first: a longer one that started earlier but ends later would make the result depend
        on how the text was cut.
        """
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if not ends:
            return -1
        first_end = min(ends)[0]
        return min(at for end, at in ends if end == first_end)

    def _partial(self, text: str) -> int:
        """Return the length of the longest end of the text with which some stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
