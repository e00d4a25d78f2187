from __future__ import annotations

from collections import deque

import pytest

from app.engine.adapter import _oldest_and_its_likes_first, joining


@pytest.mark.parametrize(
    ("begun", "fresh", "affordable", "wanted"),
    [
        ([], [100] * 20, 1000, 8),  # quick: as many as allowed
        ([], [100] * 20, 450, 4),  # as many as are affordable
        ([], [100, 100], 50, 1),  # slow: one, always
        ([], [50, 400, 50], 500, 1),  # padding the short one to the long one is not worth it
        ([300], [100], 128, 1),  # beside a long prompt that is read in pieces
        ([300, 100], [100], 128, 0),
        ([100], [100], 128, 0),
    ],
)
def test_how_many_prompts_are_read_along(begun: list[int], fresh: list[int], affordable: int, wanted: int) -> None:
    assert joining(begun, fresh, step=128, affordable=affordable, most=8) == wanted


def test_the_oldest_is_read_next_and_its_likes_with_it() -> None:
    waiting = deque([(5, [[0] * 90, [0]]), (3, [[0] * 40]), (4, [[0] * 400]), (6, [[0] * 44])])
    _oldest_and_its_likes_first(waiting)
    assert [uid for uid, _ in waiting] == [3, 6, 5, 4]
