from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.prompts.library import Library, read_shelf

if TYPE_CHECKING:
    from pathlib import Path

_GOOD = "---\ninputs: {input: {type: string}}\n---\n{{ input }}\n"


def _polled(library: Library, directory: Path) -> bool:
    """Poll as the follower does: a change is taken once it has rested for a poll."""
    return [library.poll(str(directory)) is not None for _ in range(2)] == [False, True]


def test_the_operators_files_add_and_override(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text(_GOOD)
    (tmp_path / "tutorial.md").write_text(_GOOD)
    (tmp_path / "README.md").write_text("Notes.")
    shelf, own = read_shelf(str(tmp_path)), read_shelf("")
    assert set(shelf.tasks) == {*own.tasks, "mine"}
    assert shelf.tasks["tutorial"].digest == shelf.tasks["mine"].digest != own.tasks["tutorial"].digest
    assert shelf.broken == {}


def test_a_broken_file_disables_only_itself_and_what_needs_it(tmp_path: Path) -> None:
    (tmp_path / "usage-summary.md").write_text("---\nrole: [\n---\n")
    shelf, own = read_shelf(str(tmp_path)), read_shelf("")
    assert set(shelf.tasks) == set(own.tasks) - {"usage-summary"}
    assert set(shelf.broken) == {"task/usage-summary", "pipeline/energy-recommendation"}
    assert "usage-summary" in (shelf.trouble() or "")


def test_files_that_are_no_text_or_too_large_are_broken(tmp_path: Path) -> None:
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.md").write_text(_GOOD + "x" * 300_000)
    (tmp_path / "Loud.md").write_text("no front matter")
    assert set(read_shelf(str(tmp_path)).broken) == {"task/bytes", "task/large", "task/Loud"}
    assert set(read_shelf(str(tmp_path / "nowhere")).broken) == {"PROMPTS_DIR"}


def test_changes_are_followed(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    assert library.poll(str(tmp_path)) is None
    before = library.current
    (tmp_path / "mine.md").write_text(_GOOD)
    assert _polled(library, tmp_path)
    first = library.current.tasks["mine"].digest
    (tmp_path / "mine.md").write_text(_GOOD + "More.\n")
    assert _polled(library, tmp_path)
    assert library.current.tasks["mine"].digest != first
    (tmp_path / "mine.md").write_text("broken")
    assert _polled(library, tmp_path)
    assert set(library.current.broken) == {"task/mine"}
    (tmp_path / "mine.md").unlink()
    assert _polled(library, tmp_path)
    assert library.current.broken == {}
    assert "mine" not in before.tasks  # who took a shelf before keeps it


def test_another_directory_is_followed_at_once(tmp_path: Path) -> None:
    library = Library()
    (tmp_path / "mine.md").write_text(_GOOD)
    assert library.poll(str(tmp_path)) is not None
    assert "mine" in library.current.tasks


async def test_sluices_own_prompts_are_read_at_their_first_use() -> None:
    library = Library()
    assert library.poll("") is None
    library.reload()
    assert (library.owed, library.trouble(), library._shelf) == (False, None, None)
    assert (await library.shelf()).tasks
    assert await library.shelf() is library.current


async def test_the_operators_prompts_are_owed_until_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("broken")
    library = Library(str(tmp_path))
    owed = [library.owed]
    await library.shelf()
    assert [*owed, library.owed] == [True, False]
    assert "task/mine" in (library.trouble() or "")


async def test_who_read_before_a_change_does_not_undo_it(tmp_path: Path) -> None:
    library = Library()
    (tmp_path / "mine.md").write_text(_GOOD)
    with library._reading:  # as whoever asks first, and reads slowly
        polled = asyncio.create_task(asyncio.to_thread(library.poll, str(tmp_path)))
        while library._directory != str(tmp_path):  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0)
        library._shelf = read_shelf("")
    assert await polled is not None
    assert "mine" in library.current.tasks
