"""Thousands of calls against backends that fail at random: every one ends whole or in a clear error, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.failure_play import ANSWERS, Got, call
from tests.plain import PLAIN
from tests.processes import served

if TYPE_CHECKING:
    from tests.conftest import Running, Start
    from tests.upstream import Upstream

# Three of ten attempts fail, one in a hundred hangs or stalls; names differ so that not all lanes open at once.
MODELS = (*(f"m{n}-chaos:p0.3" for n in range(6)), "n-prefill-chaos:p0.3", "h-hang:p0.05", "s-stall:2:p0.05")
SETTINGS = """
BACKENDS__PRE__BASE_URL={url}
BACKENDS__PRE__PREFILL=true
FIRST_CONTENT_TIMEOUT_S=1
ANSWER_TIMEOUT_S=1
IDLE_TIMEOUT_S=1
DEADLINE_S=8
LOG_LEVEL=error
"""
_DEADLINE_S = 8.0
_SLACK_S = 6.0
"""What a busy machine may add: client, gateway and upstream are all on it."""


async def storm(client: httpx.AsyncClient, calls: int, at_once: int) -> Counter[str]:
    """Make the calls; return how often each outcome came."""
    dice = random.Random(1)
    outcomes: Counter[str] = Counter()
    numbers = iter(range(calls))

    async def caller() -> None:
        for _ in numbers:
            model, *spares = dice.sample(MODELS, dice.choice([1, 2, 3]))
            backend = "pre" if "prefill" in model else "up"
            chain = [f"up/{spare}" for spare in spares]
            got = await call(client, f"{backend}/{model}", stream=dice.random() < 0.6, models=chain)
            assert sound(got), (got.outcome, got.wall_s, got.headers.get("x-sluice-attempts"), got.error)
            outcomes[got.outcome] += 1

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return outcomes


def sound(got: Got) -> bool:
    """Whether a call ended as it may: whole, or in a clear error, in time, and with no garbage before it."""
    clear = got.outcome in {"whole", "event"} or int(got.outcome) >= 400
    begun = any(answer.startswith(got.text) for answer in ANSWERS)
    return clear and begun and got.wall_s < _DEADLINE_S + _SLACK_S


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            found += str(link.readlink()).startswith("socket:")
    return found


def held(sluice: Running, up: Upstream) -> dict[str, int]:
    """Return what is in use now, without the connections to the upstream that are kept for the next call."""
    lanes = list(sluice.gateway.lanes)
    return {
        "tasks": len(asyncio.all_tasks()) - up.open,
        "sockets": sockets() - 2 * up.open,
        "slots": sum(lane.gate.in_use + lane.gate.waiting for lane in lanes),
        "calls": sluice.gateway.inflight,
    }


async def test_a_thousand_calls_in_a_storm_leave_nothing_behind(up: Upstream, start: Start) -> None:
    async with start(SETTINGS.format(url=up.url), up=up) as sluice:
        await call(sluice.client, "up/well", stream=True)
        before = held(sluice, up)
        async with httpx.AsyncClient(verify=PLAIN, base_url=sluice.client.base_url, timeout=30) as client:
            outcomes = await storm(client, 1000, 64)
        assert outcomes.total() == 1000
        assert outcomes["whole"] > 500
        async with asyncio.timeout(10):
            while any(now > before[what] for what, now in held(sluice, up).items()):  # noqa: ASYNC110 - closed sockets have no event for it
                await asyncio.sleep(0.02)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_ten_thousand_calls_in_a_storm(up: Upstream, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\n" + SETTINGS.format(url=up.url)
    async with served(tmp_path / ".env", text) as gateway:
        await storm(gateway.client, 1000, 64)
        up.log.clear()
        before, begun = gateway.rss_mb(), time.monotonic()
        outcomes = await storm(gateway.client, 10_000, 64)
        took_s = time.monotonic() - begun
        await up.wait_for(lambda _: up.active == 0)
        grown = gateway.rss_mb() - before
        print(f"\n10,000 calls in {took_s:.0f} s: {dict(outcomes)}; memory {before:.0f} MiB {grown:+.1f} MiB")  # noqa: T201
        assert outcomes.total() == 10_000
        assert grown < 40
        metrics = (await gateway.client.get("/metrics")).text
        assert "\nsluice_inflight 0.0\n" in metrics
