"""Gateways as processes of their own, for what only a process can show: signals, workers, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from tests.guard.redis_server import free_port
from tests.plain import PLAIN
from tests.serving import start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.forks import Forked

ONE_MODEL = "".join(
    f"MODEL_{role}=up/m\n" for role in ("SMALL", "MEDIUM", "LARGE", "CODE", "POLISH", "ANALYSIS", "EMBEDDING")
)
"""Every role is one model of the upstream: whatever a call asks for, no local model is started."""


@dataclass
class Served:
    """A gateway in a process of its own."""

    process: Forked | subprocess.Popen[bytes]
    client: httpx.AsyncClient
    port: int

    async def leave(self, within_s: float = 20.0) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(within_s)

    async def ended(self, within_s: float = 20.0) -> int:
        """Return the exit status once it has ended."""
        return await asyncio.to_thread(self.process.wait, within_s)

    def children(self) -> set[int]:
        """Return the process ids of its children."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:  # noqa: PTH123
            return {int(pid) for pid in file.read().split()}

    def rss_mb(self) -> float:
        """Return its resident memory in MiB."""
        with open(f"/proc/{self.process.pid}/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.asynccontextmanager
async def served(env_file: Path, text: str) -> AsyncIterator[Served]:
    """Run ``sluice serve`` with this text as its ``.env``, until it answers."""
    port = free_port()
    kept = "" if "DATA_DIR=" in text else "DATABASE_URL=off\n"
    env_file.write_text(f"PORT={port}\nLOG_LEVEL=error\n{kept}{text}")
    process = await asyncio.to_thread(start, env_file, text)
    try:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits
        ) as client:
            await _answers(client)
            yield Served(process, client, port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 10)
        process.kill()
        await asyncio.to_thread(process.wait)


async def _answers(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get("/health/live", headers={"connection": "close"})  # one kept alive is waited for
                return
            await asyncio.sleep(0.05)
