from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from app.guard.board import Board
from tests.guard.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_sees_the_others_and_not_itself(tmp_path: Path) -> None:
    one, two, three = (Board(tmp_path, name) for name in ("1", "2", "3"))
    one.publish("breakers", {"lane": "open"})
    two.publish("breakers", {"lane": "closed"})
    two.publish("calls", [1, 2])
    for board in (one, two, three, one):
        board.tick()
    assert one.others("breakers") == {"2": {"lane": "closed"}}
    assert three.others("breakers") == {"1": {"lane": "open"}, "2": {"lane": "closed"}}
    assert three.others("calls") == {"2": [1, 2]}
    assert three.others("nothing") == {}


def test_what_is_published_last_counts(tmp_path: Path) -> None:
    one, two = Board(tmp_path, "1"), Board(tmp_path, "2")
    for number in range(3):
        one.publish("number", number)
        one.tick()
        two.tick()
        assert two.others("number") == {"1": number}


def test_nothing_is_written_when_nothing_is_new(tmp_path: Path) -> None:
    clock = Clock()
    board = Board(tmp_path, "1", clock)
    own = tmp_path / "worker-1.json"
    first = own.stat().st_ino, own.stat().st_mtime_ns
    board.tick()
    assert (own.stat().st_ino, own.stat().st_mtime_ns) == first
    clock.pass_s(1)
    board.tick()
    assert (own.stat().st_ino, own.stat().st_mtime_ns) != first


def test_the_file_of_a_dead_worker_is_ignored_and_removed(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from app.guard.board import Board\n"
    program += "board = Board(Path(sys.argv[1]), 'gone'); board.publish('s', 1); board.tick()"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    left = tmp_path / "worker-gone.json"
    assert left.exists()
    board = Board(tmp_path, "1")
    assert board.others("s") == {}
    assert not left.exists()


def test_a_worker_that_hangs_is_left_out(tmp_path: Path) -> None:
    hanging = Board(tmp_path, "hanging")
    hanging.publish("s", 1)
    hanging.tick()
    board = Board(tmp_path, "1")
    assert board.others("s") == {"hanging": 1}
    os.utime(tmp_path / "worker-hanging.json", (1, 1))
    board.tick()
    assert board.others("s") == {}


def test_a_worker_that_ends_takes_its_file_away(tmp_path: Path) -> None:
    one, two = Board(tmp_path, "1"), Board(tmp_path, "2")
    one.publish("s", 1)
    one.tick()
    one.close()
    two.tick()
    assert two.others("s") == {}


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b"\xff\x00", b'{"pid": "x"}', b'{"overrides": 3}'])
def test_garbage_in_a_file_is_nobody(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "worker-x.json").write_bytes(garbage)
    (tmp_path / "control.json").write_bytes(garbage)
    board = Board(tmp_path, "1")
    assert board.others("s") == {}
    assert board.overrides() == {}
    board.set_override("a/b", "open")
    assert board.overrides() == {"a/b": "open"}


def test_overrides_reach_everybody(tmp_path: Path) -> None:
    one, two = Board(tmp_path, "1"), Board(tmp_path, "2")
    one.set_override("groq/x", "open")
    two.set_override("mlx/y", "closed")
    one.tick()
    assert one.overrides() == two.overrides() == {"groq/x": "open", "mlx/y": "closed"}
    two.set_override("groq/x", None)
    one.tick()
    assert one.overrides() == {"groq/x": None, "mlx/y": "closed"}
    assert Board(tmp_path, "3").overrides() == one.overrides()


def test_reload_generation(tmp_path: Path) -> None:
    one, two = Board(tmp_path, "1"), Board(tmp_path, "2")
    assert two.reload_generation() == 0
    assert one.bump_reload() == 1
    assert two.bump_reload() == 2
    one.tick()
    assert one.reload_generation() == two.reload_generation() == 2


def test_changes_by_several_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from app.guard.board import Board\n"
    program += "board = Board(Path(sys.argv[1]), sys.argv[2])\n"
    program += "for n in range(50): board.bump_reload(); board.set_override(f'{sys.argv[2]}/{n}', 'open')"
    workers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(n)]) for n in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    board = Board(tmp_path, "reader")
    assert board.reload_generation() == 150
    assert len(board.overrides()) == 150


def test_one_probe_for_all_workers(tmp_path: Path) -> None:
    clock = Clock()
    one, two = Board(tmp_path, "1", clock), Board(tmp_path, "2", clock)
    assert one.take_probe("a/b", 2)
    assert one.take_probe("a/b", 2)
    assert not two.take_probe("a/b", 2)
    assert two.take_probe("a/c", 2)
    two.drop_probe("a/b")
    assert not two.take_probe("a/b", 2)
    one.drop_probe("a/b")
    assert two.take_probe("a/b", 2)
    clock.pass_s(2)
    assert one.take_probe("a/b", 2)
