from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.engine.stop import StopMatcher

TEXT = st.text(alphabet="abé🙂", max_size=40)
STOPS = st.lists(st.text(alphabet="abé🙂", min_size=1, max_size=5), max_size=4).map(tuple)


def run(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(piece) for piece in pieces)
    return shown + matcher.flush(), matcher.hit


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(TEXT, STOPS, st.lists(st.integers(0, 1000), max_size=12))
def test_the_result_does_not_depend_on_how_the_text_is_cut(
    text: str, stops: tuple[str, ...], places: list[int]
) -> None:
    assert run(cut(text, places), stops) == run(list(text), stops)


@given(TEXT, STOPS)
def test_what_is_shown_ends_where_the_first_complete_stop_begins(text: str, stops: tuple[str, ...]) -> None:
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    shown, hit = run([text], stops)
    assert hit == bool(ends)
    if not ends:
        assert shown == text
        return
    longest = max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))
    assert shown == text[: ends[0] - longest]


@given(TEXT, STOPS)
def test_what_is_shown_early_is_never_taken_back(text: str, stops: tuple[str, ...]) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for letter in text:
        shown += matcher.feed(letter)
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)


def test_nothing_comes_after_a_hit() -> None:
    matcher = StopMatcher(("END",))
    assert matcher.feed("so far EN") == "so far "
    assert matcher.feed("D and more") == ""
    assert matcher.hit
    assert matcher.feed("more") == matcher.flush() == ""
