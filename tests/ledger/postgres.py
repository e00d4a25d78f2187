"""A real PostgreSQL server of the test's own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest

from tests.guard.redis_server import free_port


def _program(name: str) -> str:
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip("postgresql is not installed")
    return found


class PostgresServer:
    """In a folder of its own, on a port that stays the same when it is stopped and started again."""

    def __init__(self) -> None:
        self._control = _program("pg_ctl")
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-postgres-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.port = free_port()
        self.url = f"postgresql://sluice@127.0.0.1:{self.port}/postgres"
        self._run(_program("initdb"), "-D", str(self._folder), "-U", "sluice", "-A", "trust", "--no-sync")

    def _run(self, *command: str) -> None:
        home = pwd.getpwnam(self._user).pw_dir if self._user else None
        subprocess.run(command, user=self._user, cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def start(self) -> Self:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "log")
        self._run(self._control, "-D", str(self._folder), "-o", options, "-l", log, "-w", "start")
        return self

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._run(self._control, "-D", str(self._folder), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Stop it for good."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it is not running
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
