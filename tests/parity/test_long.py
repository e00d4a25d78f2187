"""Callers beside shadows: what they notice of it, in one run."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.parity.test_shadow import BASE, EQUAL, calls, counted, opened
from tests.serving import program
from tests.upstream.client import ask

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.upstream import Upstream

ROUNDS, CALLS, CALLERS = 10, 60, 4
"""Rounds with shadows and without in turn, so that what else the machine does falls on both alike."""


@pytest.mark.long
async def test_callers_do_not_notice_shadows(up: Upstream, tmp_path: Path) -> None:
    text = f"{BASE}{EQUAL}DATA_DIR={tmp_path}/data\nBACKENDS__UP__BASE_URL={up.url}\nPARITY_MARGIN=0.001\n"
    took_ms: dict[str, list[float]] = {"0": [], "0.2": []}
    async with program(tmp_path / ".env", text) as sluice:
        await opened(sluice.client)
        await calls(sluice.client, 8)
        begun = sluice.env.read_text()
        for number in range(2 * ROUNDS):
            share = list(took_ms)[number % 2]
            sluice.env.write_text(begun.replace("SHADOW_SHARE=1", f"SHADOW_SHARE={share}"))
            await applied(sluice.client, float(share))
            took_ms[share] += await round_of(sluice.client, number)
        samples = await counted(sluice.client, "sluice_parity_samples_total")
    off, on = (percentiles(took_ms[share]) for share in ("0", "0.2"))
    for name, without, beside in zip(("p50", "p99"), off, on, strict=True):
        sys.stdout.write(f"{name}: {without:.2f} ms without, {beside:.2f} ms with shadows, x {beside / without:.2f}\n")
    sys.stdout.write(f"{samples:.0f} samples, {len(took_ms['0'])} calls each\n")
    assert samples > 20
    assert on[1] / off[1] < 2.0


async def applied(client: httpx.AsyncClient, share: float) -> None:
    async with asyncio.timeout(10):
        while True:
            settings = (await client.get("/admin/config")).json()["settings"]
            if settings["shadow_share"] == share:
                return
            await asyncio.sleep(0.05)


async def round_of(client: httpx.AsyncClient, number: int) -> list[float]:
    """Make calls by some callers at once; return the milliseconds of each."""
    took: list[float] = []

    async def caller(which: int) -> None:
        for turn in range(CALLS // CALLERS):
            start = time.perf_counter()
            answer = await client.post("/v1/chat/completions", json=ask("fast", f"{number} {which} {turn}?"))
            took.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200

    await asyncio.gather(*(caller(which) for which in range(CALLERS)))
    return took


def percentiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
