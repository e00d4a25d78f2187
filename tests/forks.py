"""``python -m MODULE`` in milliseconds: a process that has imported what the program imports forks for each of them.

What is started is a process of its own in all else: pid, signals, environment, standard streams, exit status. Only what
a module reads from the environment while it is imported is the test run's: where that matters, start the true command.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

ROOT = Path(__file__).parents[1]
_IMPORTS = {
    "app": (
        *("app.cli.commands", "app.serve", "app.main", "app.api.site"),
        "uvloop",
        *(
            "alembic.command",
            "app.ledger.connection",
            "app.ledger.tables.create",
            "sqlalchemy.dialects.sqlite.aiosqlite",
        ),
    ),
    "app.engine": ("tests.engine.imports",),
}
"""What to import before forking, for each program."""
_MOST_BYTES = 1 << 17
"""Of one request: words and environment; a message of a Unix socket may be larger."""


class Forked:
    """A program that was started; its methods are those of ``subprocess.Popen``."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._lock = threading.Lock()
        self.pid = int(told.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, minus the signal that killed it; None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it ends.

        Raises:
            subprocess.TimeoutExpired: it did not end within so many seconds.
        """
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def _status(self, timeout_s: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._told], [], [], timeout_s)[0]:
                self.returncode = int(self._told.recv(32))
                self._told.close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> Forked:
    """Start ``python -m WORDS``, with the environment of the tests and without streams where there are no others."""
    request = json.dumps({"words": words, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}).encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, open(os.devnull, "r+b") as nothing:  # noqa: PTH123
        streams = [(each or nothing).fileno() for each in (stdin, stdout, stderr)]
        socket.send_fds(_parent(words[0]), [request], [*streams, theirs.fileno()])
    return Forked(ours)


def run(
    *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m WORDS`` to its end, with what a person types."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(typed.encode())
        stdin.seek(0)
        status = start(*words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr).wait(60)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(words, status, stdout.read().decode(), stderr.read().decode())


@functools.cache
def _parent(program: str) -> socket.socket:
    """Start the process that forks for a program; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), *_IMPORTS[program]]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        process.wait(30)

    atexit.register(end)
    return ours


# -- the process that forks --------------------------------------------------------------------------------------------


@dataclass
class _Parent:
    """What forks, as it is asked over a socket.

    Attributes:
        told: where to tell the exit status of each child.
    """

    control: socket.socket
    told: dict[int, socket.socket] = field(default_factory=dict)

    def serve(self) -> _Asked:
        """Fork; return in every child."""
        ended, wake = socket.socketpair()
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno())
        while True:
            ready, _, _ = select.select([self.control, ended], [], [])
            if ended in ready:
                ended.recv(4096)
                self._reap()
            if self.control in ready and (asked := self._fork()) is not None:
                for each in (self.control, ended, wake, *self.told.values()):
                    each.close()
                return asked

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                with self.told.pop(found[0]) as told, contextlib.suppress(OSError):
                    told.send(str(os.waitstatus_to_exitcode(found[1])).encode())

    def _fork(self) -> _Asked | None:
        request, fds, _, _ = socket.recv_fds(self.control, _MOST_BYTES, 4)
        if not request:  # there is nobody left to ask
            sys.exit()
        pid = os.fork()
        if not pid:
            return _Asked(**json.loads(request), fds=fds)
        for each in fds[:3]:
            os.close(each)
        self.told[pid] = socket.socket(fileno=fds[3])
        with contextlib.suppress(OSError):
            self.told[pid].send(str(pid).encode())
        return None


@dataclass
class _Asked:
    """What a child is to become."""

    words: list[str]
    cwd: str
    env: dict[str, str]
    fds: list[int]

    def run(self) -> None:
        """Be what a new process would be, and run the program."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, fd in enumerate(self.fds[:3]):
            os.dup2(fd, number)
        for fd in self.fds:
            os.close(fd)
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.env)
        sys.path[0] = self.cwd
        module, *sys.argv[1:] = self.words
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main() -> None:
    gc.disable()  # looking for garbage among imports takes a fifth of the time
    for name in sys.argv[2:]:
        importlib.import_module(name)
    sys.modules.pop("app.__main__", None)  # it runs anew in every child
    gc.freeze()
    gc.enable()
    _Parent(socket.socket(fileno=int(sys.argv[1]))).serve().run()


if __name__ == "__main__":
    _main()
