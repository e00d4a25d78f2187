from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from app.batch.folder import Folder

_LIVE = (
    "import sys; from app.batch.folder import Folder; lock = Folder(sys.argv[1]).live('p'); "
    "print('up', flush=True); input()"
)


def test_a_process_that_is_killed_is_known_to_be_dead_at_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert not folder.is_dead("p")
    with subprocess.Popen(
        [sys.executable, "-c", _LIVE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert not folder.is_dead("p")
        process.kill()
    assert folder.is_dead("p")
    folder.forget_dead()
    assert folder.is_dead("p")  # its sign stays while leases of its may be under way
    long_ago = time.time() - 7200
    os.utime(folder.root / "owners" / "p", (long_ago, long_ago))
    folder.forget_dead()
    assert not folder.is_dead("p")


def test_parts_are_found_in_the_order_of_their_writing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.make()
    for number, owner in enumerate(("b", "a")):
        path = folder.part("batch_1", owner)
        path.write_bytes(b"x")
        os.utime(path, ns=(number, number))
    folder.part("batch_2", "a").write_bytes(b"y")
    assert [path.name for path in folder.parts("batch_1")] == ["batch_1.b.part", "batch_1.a.part"]
    folder.drop_parts("batch_1")
    assert folder.parts("batch_1") == []
    assert len(list(folder.old(time.time() + 1))) == 1
