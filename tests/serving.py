"""The gateway as a program: ``sluice serve`` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import forks
from tests.forks import Forked
from tests.plain import PLAIN


def is_worker(pid: int) -> bool:
    """Whether a process is a fork of its parent, which only workers are; one that has just ended is none."""
    try:
        ours, theirs = (Path(f"/proc/{each}/cmdline").read_bytes() for each in (pid, _parent(pid)))
    except OSError:
        return False
    return ours == theirs


def workers_of(supervisor: int) -> list[int]:
    """Return the pids of a gateway's workers."""
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return sorted(pid for pid in pids if _parent(pid) == supervisor and is_worker(pid))


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def start(env: Path, text: str) -> Forked | subprocess.Popen[bytes]:
    """Start the program with an ``.env``, of which the text is a part.

    Workers count in files that the environment names before anything is imported: they need the true command.
    """
    words = ("app", "serve", "--env-file", str(env))
    if "WORKERS=" not in text:
        return forks.start(*words)
    none = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", *words], cwd=forks.ROOT, stdin=none, stdout=none, stderr=none)


@dataclass
class Program:
    """A gateway that serves.

    Attributes:
        client: each of its calls has a connection of its own, which any worker may accept.
        pid: the process that was started; with several workers their parent.
    """

    client: httpx.AsyncClient
    pid: int
    env: Path

    def workers(self) -> list[int]:
        """Return the pids of its children that serve."""
        return workers_of(self.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def program(env: Path, text: str) -> AsyncIterator[Program]:
    """Run the program with this text as its ``.env``; it must end with status 0."""
    port = _free_port()
    kept = "" if "DATA_DIR=" in text else "DATABASE_URL=off\n"
    env.write_text(f"PORT={port}\n{kept}{text}")
    process = await asyncio.to_thread(start, env, text)
    try:
        fresh = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=10, limits=fresh
        ) as client:
            await _live(client, process)
            yield Program(client, process.pid, env)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()
        process.wait()


async def _live(client: httpx.AsyncClient, process: Forked | subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(30):
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/health/live")).status_code == 200:
                    return
            await asyncio.sleep(0.02)
    raise AssertionError("it ended")
