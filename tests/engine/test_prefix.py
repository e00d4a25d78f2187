from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.engine.prefix import PrefixIndex

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=16, max_size=60), max_size=12)


class Shelf:
    """A store in memory that counts."""

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    def save(self, number: int, value: Any) -> int:
        self.kept[number] = value
        return 10

    def load(self, number: int) -> Any:
        return self.kept[number]

    def drop(self, number: int) -> None:
        self.kept.pop(number, None)


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_the_longest_common_start_is_found_and_one_token_left(kept: list[list[int]], wanted: list[int]) -> None:
    index = PrefixIndex(10**6, cuttable=True)
    for tokens in kept:
        index.add(tokens, tuple(tokens), 1)
    best = max((min(common(tokens, wanted), len(wanted) - 1) for tokens in kept), default=0)
    hit = index.find(wanted)
    if best < 16:
        assert hit is None
    else:
        assert hit is not None
        assert hit.tokens == best
        assert list(hit.value[:best]) == wanted[:best]


@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_an_uncuttable_value_serves_only_as_a_whole(kept: list[list[int]], wanted: list[int]) -> None:
    index = PrefixIndex(10**6, cuttable=False)
    for tokens in kept:
        index.add(tokens, tuple(tokens), 1)
    whole = [tokens for tokens in kept if len(tokens) < len(wanted) and wanted[: len(tokens)] == tokens]
    hit = index.find(wanted)
    assert (hit.tokens if hit else 0) == max(map(len, whole), default=0)


@given(SEQUENCES, st.integers(1, 40))
def test_the_budget_holds_in_memory_and_on_disk(kept: list[list[int]], budget: int) -> None:
    shelf = Shelf()
    index = PrefixIndex(budget, cuttable=True, store=shelf, disk_budget=25)
    for number, tokens in enumerate(kept):
        index.add(tokens, number, len(tokens) % 9 + 1)
        index.find(kept[number // 2])
        assert index.bytes <= max(budget, 9)
        assert index.disk_bytes <= 25 + 10
        assert len(shelf.kept) <= 3 + 1
    index.clear()
    assert (index.bytes, index.disk_bytes, len(shelf.kept), len(index)) == (0, 0, 0, 0)


def test_the_least_recently_used_goes_first() -> None:
    index = PrefixIndex(20, cuttable=True)
    first, second, third = ([n] * 20 for n in (1, 2, 3))
    index.add(first, "first", 10)
    index.add(second, "second", 10)
    assert index.find([*first, 0]) is not None
    index.add(third, "third", 10)
    assert index.find([*second, 0]) is None
    assert index.find([*first, 0]) is not None


def test_a_longer_sequence_replaces_what_it_begins_with() -> None:
    index = PrefixIndex(100, cuttable=True)
    index.add([1] * 20, "short", 10)
    index.add([1] * 30, "long", 10)
    assert len(index) == 1
    hit = index.find([*[1] * 25, 2])
    assert hit is not None
    assert (hit.value, hit.tokens, hit.whole) == ("long", 25, 30)
