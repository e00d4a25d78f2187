from __future__ import annotations

import errno
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from app.env_file import edited, only_one, read_text, write

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "# head\nA=1\n\n  export B = 'old value' # why\r\nC\nnot a line\nA=2 # the last counts\n# tail"


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"B": "new"}, "  export B = 'old value' # why\r\n", "  export B = new # why\r\n"),
        ({"b": "x y"}, "  export B = 'old value' # why\r\n", "  export B = 'x y' # why\r\n"),
        ({"A": "3"}, "A=2 # the last", "A=3 # the last"),
        ({"C": "c/d"}, "C\n", "C=c/d\n"),
        ({"NEW": "a/b@50,c/d"}, "# tail", "# tail\r\nNEW=a/b@50,c/d\r\n"),
    ],
)
def test_only_the_variable_changes(changes: dict[str, str | None], before: str, after: str) -> None:
    assert edited(TEXT, changes) == TEXT.replace(before, after)


def test_none_takes_every_line_of_a_variable_out() -> None:
    assert edited(TEXT, {"a": None}) == TEXT.replace("A=1\n", "").replace("A=2 # the last counts\n", "")
    assert edited("", {"A": None}) == ""


def test_what_is_added_and_taken_out_again_leaves_no_trace() -> None:
    whole = TEXT + "\n"
    assert edited(edited(whole, {"NEW": "x"}), {"NEW": None}) == whole


@given(
    st.lists(st.sampled_from([*TEXT.splitlines(keepends=True), "D='two\nlines'\n", 'E="q\\"#"\n', "F=\n"])),
    st.sampled_from(["A", "B", "D", "E", "F", "G"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cc", "Zl", "Zp")), min_size=1),
)
def test_any_value_is_read_back_and_others_stay(lines: list[str], name: str, value: str) -> None:
    text = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
    changed = edited(text, {name: value})
    assert values(changed) == values(text) | {name: value}


def values(text: str) -> dict[str, str | None]:
    import io

    return dict(dotenv_values(stream=io.StringIO(text, newline=""), interpolate=False))


def names(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def test_a_value_is_one_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        edited("", {"A": "x\nB=y"})


def test_a_new_file_is_the_owners_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    write(path, "A=1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    before = path.stat().st_ino
    write(path, "A=2\n")
    assert (stat.S_IMODE(path.stat().st_mode), read_text(path)) == (0o644, "A=2\n")
    assert path.stat().st_ino != before
    assert names(tmp_path) == [".env"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("A=1\n")
    (tmp_path / ".env").symlink_to("real")
    write(tmp_path / ".env", "A=2\n")
    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "real").read_text() == "A=2\n"


def test_a_mount_point_is_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("A=a longer text than the new one\n")
    before = path.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("os.replace", busy)
    write(path, "A=2\n")
    assert (path.read_text(), path.stat().st_ino, names(tmp_path)) == ("A=2\n", before, [".env"])


def test_other_failures_leave_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "A=2\n")
    assert (path.read_text(), names(tmp_path)) == ("A=1\n", [".env"])


def test_two_editors_take_turns(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("")

    def add(number: int) -> None:
        with only_one(path):
            write(path, edited(read_text(path), {f"V{number}": "x"}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(values(path.read_text())) == 16
