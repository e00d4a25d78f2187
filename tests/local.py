"""Gateways with tiny local models: in the test's loop, or in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests import forks
from tests.engine.process import environment
from tests.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

Process = subprocess.Popen[bytes] | forks.Forked
ROOT = Path(__file__).resolve().parents[1]


def engines() -> set[int]:
    """Return the pids of the engines that run on this machine (Linux)."""
    found = set()
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if each.name.isdigit() and b"app.engine\0--uds" in (each / "cmdline").read_bytes():
                found.add(int(each.name))
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Served:
    """A gateway in a process of its own."""

    process: Process
    url: str
    log: Path
    http: httpx.Client

    def chat(self, model: str, text: str = "hello there", **more: Any) -> httpx.Response:
        """Send a chat call."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.http.post("/v1/chat/completions", json=body)

    def engine_pids(self) -> set[int]:
        """Return the engines that this gateway, or one of its workers, started."""
        mine = family(self.process.pid)
        found = engines()
        return {pid for pid in found if parent(pid) in mine and parent(pid) not in found}


def serving_child(engine: int) -> int:
    """Return the process that an engine has forked to serve, or the engine itself where it serves on its own."""
    return next((pid for pid in engines() if parent(pid) == engine), engine)


def parent(pid: int) -> int:
    """Return the parent of a process, 0 where it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def family(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    members = {pid}
    everybody = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    while True:
        more = {each for each in everybody if each not in members and parent(each) in members}
        if not more:
            return members
        members |= more


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(what: Any, limit_s: float = 30.0) -> Any:
    """Return what a function returns once that is true."""
    until = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def serving(folder: Path, text: str, *command: str, **env: str) -> Iterator[Served]:
    """Run ``sluice serve`` with this text as its ``.env``; ``command`` runs before it, as strace does."""
    port = free_port()
    env_file, log = folder / ".env", folder / "log"
    kept = "" if "DATA_DIR=" in text else "DATABASE_URL=off\n"
    env_file.write_text(f"PORT={port}\n{kept}{text}")
    arguments = [*command, sys.executable, "-m", "app", "serve", "--env-file", str(env_file)]
    told = {**environment(**env)}
    if "LOCAL_ONLY" not in env:
        del told["LOCAL_ONLY"]
    process: Process
    with log.open("wb") as sink:
        # Workers count in files that the environment names before anything is imported.
        if command or "PYTHONPATH" in env or "WORKERS=" in text:
            process = subprocess.Popen(arguments, cwd=ROOT, env=told, stdout=sink, stderr=sink)
        else:
            process = forks.start(*arguments[2:], env=told, stdout=sink, stderr=sink)
    with httpx.Client(verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        served = Served(process, f"http://127.0.0.1:{port}/v1", log, http)
        try:
            wait_until(lambda: _live(served))
            yield served
        finally:
            http.close()  # a gateway waits for calls on connections that are kept alive
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                for pid in family(process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait(10)
                raise


def _live(served: Served) -> bool:
    assert served.process.poll() is None, served.log.read_text()
    try:
        return served.http.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False
