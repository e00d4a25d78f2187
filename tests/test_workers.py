"""Several workers: one that is killed is replaced, and the others serve meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.failure_play import call
from tests.plain import PLAIN
from tests.processes import served
from tests.serving import is_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.upstream import Upstream


async def test_a_killed_worker_is_replaced_while_the_other_serves(up: Upstream, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nWORKERS=2\n"
    async with served(tmp_path / ".env", text) as gateway:
        before = await _two(gateway.children)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        ended = [await _fresh_call(gateway.port) for _ in range(30)]
        assert ended.count("whole") >= 29  # the victim may have had one in hand
        after = await _two(gateway.children, without=victim)
        assert after != before
        os.kill(newest := max(after - before), signal.SIGTERM)  # its own handlers take it, though it is a fork
        await _gone({newest})
        await _two(gateway.children, without=newest)
        assert [await _fresh_call(gateway.port) for _ in range(20)] == ["whole"] * 20
        assert await gateway.leave() == 0


async def test_workers_leave_when_their_supervisor_is_killed(up: Upstream, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nWORKERS=2\n"
    async with served(tmp_path / ".env", text) as gateway:
        workers = await _two(gateway.children)
        gateway.process.kill()
        await gateway.ended()
        await _gone(workers)


async def _gone(pids: set[int]) -> None:
    async with asyncio.timeout(20):
        while any(Path(f"/proc/{each}").exists() for each in pids):  # noqa: ASYNC110 - nobody tells a stranger
            await asyncio.sleep(0.1)


async def _two(children: Callable[[], set[int]], without: int = 0) -> set[int]:
    """Wait until two workers run."""
    async with asyncio.timeout(20):
        while True:
            found = {child for child in children() if is_worker(child)} - {without}
            if len(found) == 2:
                return found
            await asyncio.sleep(0.1)


async def _fresh_call(port: int) -> str:
    """Call over a connection of its own, so that any worker may get it."""
    try:
        async with httpx.AsyncClient(verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            return (await call(client, "up/m", stream=True)).outcome
    except httpx.TransportError as error:
        return repr(error)
