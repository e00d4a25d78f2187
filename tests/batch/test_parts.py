"""Rows on disk: whatever moment a process is killed at, every whole row counts once, and half a row never."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.batch.parts import Part, assemble, done

_rows = st.lists(
    st.tuples(st.integers(1, 40), st.from_regex(rb'\{"a":"[^\n]{0,30}"\}', fullmatch=True), st.booleans()), max_size=30
)


def _written(path: Path, rows: list[tuple[int, bytes, bool]]) -> bytes:
    path.unlink(missing_ok=True)
    part = Part(path)
    for number, row, good in rows:
        part.write(number, row, good=good)
    part.close()
    return path.read_bytes() if path.exists() else b""


@given(first=_rows, second=_rows, cut=st.integers(0, 60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_first_whole_row_of_each_line_counts(
    tmp_path: Path, first: list[tuple[int, bytes, bool]], second: list[tuple[int, bytes, bool]], cut: int
) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    raw = _written(one, first)
    kept = raw[: max(len(raw) - cut, 0)]
    one.write_bytes(kept)
    _written(two, second)
    two.touch()
    whole = first[: kept.count(b"\n")]
    expected: dict[int, tuple[bytes, bool]] = {}
    for number, row, good in [*whole, *second]:
        expected.setdefault(number, (row, good))
    places = done([one, two])
    assert {number: place.good for number, place in places.items()} == {n: good for n, (_, good) in expected.items()}
    good_path, bad_path = tmp_path / "good", tmp_path / "bad"
    for path in (good_path, bad_path):
        path.unlink(missing_ok=True)
    sizes = assemble(places, good_path, bad_path)
    for which, path, size in ((True, good_path, sizes[0]), (False, bad_path, sizes[1])):
        rows = [row for _, (row, good) in sorted(expected.items()) if good is which]
        assert (path.read_bytes() if path.exists() else b"") == b"".join(row + b"\n" for row in rows)
        assert size == (path.stat().st_size if path.exists() else 0)
        assert path.exists() == bool(rows)


def test_many_threads_write_to_one_part(tmp_path: Path) -> None:
    part = Part(tmp_path / "p")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: part.write(number, b"{}" * number, good=True), range(1, 200)))
    part.close()
    assert {number: place.end - place.begin for number, place in done([part.path]).items()} == {
        number: 2 * number + 1 for number in range(1, 200)
    }


def test_no_two_runs_share_a_part(tmp_path: Path) -> None:
    first = Part(tmp_path / "p")
    first.write(1, b"{}", good=True)
    with pytest.raises(FileExistsError):
        Part(tmp_path / "p").write(1, b"{}", good=True)
    first.close()


def test_a_part_that_could_not_be_written_takes_no_more() -> None:
    part = Part(Path("/dev/full"))
    part._fd = os.open("/dev/full", os.O_WRONLY)
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space left|could not be written"):
            part.write(1, b"{}", good=True)
    part.close()
