"""A batch outlives the process that works on it: killed in the middle, twice, it loses no line and doubles none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.batch.client import begin, line, over, rows, said
from tests.processes import served
from tests.upstream import Upstream

_MODEL = "m-late:0.02"
_PARALLEL = 8


async def _killed_twice(up: Upstream, tmp_path: Path, count: int, workers: int) -> None:
    text = (
        f"BACKENDS__UP__BASE_URL={up.url}\nMLX_ENABLED=false\nDATA_DIR={tmp_path}/kept\n"
        f"BATCH_PARALLEL={_PARALLEL}\nWORKERS={workers}\nCACHE=off\n"
    )
    made = ""
    for life in range(3):
        async with served(tmp_path / ".env", text) as gateway:
            if not life:
                await _open(gateway.client)
                lines = [line(f"n{n}", f"SAY answer {n}", model=f"up/{_MODEL}") for n in range(count)]
                made = (await begin(gateway.client, lines))["id"]
            if life < 2:
                enough = (life + 1) * count // 3
                await up.wait_for(lambda log, enough=enough: len(log) >= enough, 60)  # type: ignore[misc]
                children = gateway.children() if workers > 1 else set()
                gateway.process.kill()
                await gateway.ended()
                _kill(children)
                continue
            await _open(gateway.client)
            batch = await over(gateway.client, made, 120)
            found = await rows(gateway.client, batch["output_file_id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": count, "completed": count, "failed": 0}
    assert [(row["custom_id"], said(row)) for row in found] == [(f"n{n}", f"answer {n}") for n in range(count)]
    assert count <= len(up.log) <= count + 2 * _PARALLEL


async def _open(client: httpx.AsyncClient) -> None:
    """Wait for the database."""
    async with asyncio.timeout(30):
        while (await client.get("/v1/files")).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def _kill(children: set[int]) -> None:
    """Kill the workers, too: left alone they would notice that their parent is gone and leave in an orderly way."""
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_a_batch_survives_two_kills(up: Upstream, tmp_path: Path) -> None:
    await _killed_twice(up, tmp_path, 120, 1)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_batch_of_1000_lines_survives_two_kills(up: Upstream, tmp_path: Path, workers: int) -> None:
    await _killed_twice(up, tmp_path, 1000, workers)
    print(f"\n{workers} workers: 1000 lines, {len(up.log)} calls")  # noqa: T201
