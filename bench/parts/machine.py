"""What the benches ask of the machine: programs built, processor time and memory of processes, a line that names it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_TICKS_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def programs(folder: Path) -> tuple[list[str], list[str]]:
    """Return the commands of the upstream and of the load: compiled where there is a C compiler, else in Python."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        slow = [sys.executable, str(HERE / "slow.py")]
        return [*slow, "upstream"], [*slow, "load"]
    for name in ("upstream", "load"):
        subprocess.run([compiler, "-O2", "-o", str(folder / name), str(HERE / f"{name}.c")], check=True)
    return [str(folder / "upstream")], [str(folder / "load")]


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Return the processor time that these processes have used, in seconds; steps of 10 ms."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_S


def rss_mb(pids: Sequence[int]) -> float:
    """Return the resident memory of these processes together, in MiB."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE / 2**20


def await_rest(pids: Sequence[int], within_s: float = 30.0) -> None:
    """Wait until processes have done what a load left behind: it would go on beside the next one's."""
    until = time.perf_counter() + within_s
    while pids and time.perf_counter() < until:
        used = cpu_s(pids)
        time.sleep(0.2)
        if cpu_s(pids) - used <= 1 / _TICKS_S:
            return


def free_port() -> int:
    """Return a port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def await_http(port: int, path: str, process: subprocess.Popen[bytes], within_s: float = 180.0) -> None:
    """Wait until a server answers a GET with 200.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    until = time.perf_counter() + within_s
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(ask)
            if b" 200 " in connection.recv(64):
                return
        time.sleep(0.005)
    raise RuntimeError(f"{process.args!r} did not answer within {within_s:g} s")


def description() -> str:
    """Return one line that says what machine this is and how busy it was."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {model}, {platform.system()}, Python {platform.python_version()}, load {load:.1f} at start"
    )
