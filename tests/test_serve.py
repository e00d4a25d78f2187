"""The listening socket: many connections at once, and more than there are files for."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from tests.serving import program

if TYPE_CHECKING:
    from tests.serving import Program

_ASK = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


async def asked(gateway: Program) -> bytes:
    """Return the first line of the answer on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.client.base_url.port)
    try:
        writer.write(_ASK)
        return await asyncio.wait_for(reader.readline(), 20)
    finally:
        writer.close()


async def test_hundreds_of_connections_at_once_are_all_answered(tmp_path: Path) -> None:
    async with program(tmp_path / ".env", "") as gateway:
        lines = await asyncio.gather(*(asked(gateway) for _ in range(300)))
    assert set(lines) == {b"HTTP/1.1 200 OK\r\n"}


async def test_connections_wait_where_there_are_no_files_left(tmp_path: Path) -> None:
    async with program(tmp_path / ".env", "") as gateway:
        used = len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))
        _, most = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (used + 8, most))
        idle = [await asyncio.open_connection("127.0.0.1", gateway.client.base_url.port) for _ in range(24)]
        waits = asyncio.create_task(asked(gateway))
        for _, writer in idle:
            writer.close()
        assert await waits == b"HTTP/1.1 200 OK\r\n"
