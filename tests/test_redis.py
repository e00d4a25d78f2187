"""Two gateways on one Redis: what one learns the other knows, and losing Redis costs no call."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.failure_play import call
from tests.guard.redis_server import RedisServer
from tests.processes import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.upstream import Upstream


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.kill()


async def until(gateway: Served, path: str, wish: Any, within_s: float) -> float:
    """Ask again and again until the answer is as wished; return how long it took."""
    begun = time.monotonic()
    async with asyncio.timeout(within_s):
        while not wish((await gateway.client.get(path)).json()):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def test_an_opened_breaker_is_respected_by_the_other_gateway(
    up: Upstream, redis: RedisServer, tmp_path: Path
) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nREDIS_URL={redis.url}\nRETRIES=0\n"
    async with served(tmp_path / "a.env", text) as one, served(tmp_path / "b.env", text) as other:
        await call(other.client, "up/sick", stream=False)
        up.always("sick", "500")
        for _ in range(5):
            await call(one.client, "up/sick", stream=False)
        took_s = await until(
            other, "/admin/breakers", lambda told: told["lanes"]["up/sick"]["state"] == "open", within_s=30
        )
        assert took_s < 1
        seen = len(up.of("sick"))
        got = await call(other.client, "up/sick", stream=False, models=["up/well"])
        assert got.headers["x-sluice-attempts"] == "up/sick=open;up/well=ok"
        assert len(up.of("sick")) == seen
        await one.client.post("/admin/breakers/up/sick", json={"state": "closed"})
        took_s = await until(
            other, "/admin/breakers", lambda told: told["lanes"]["up/sick"]["forced"] == "closed", within_s=30
        )
        assert took_s < 1


async def test_redis_killed_under_load_fails_no_call(up: Upstream, redis: RedisServer, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nREDIS_URL={redis.url}\nMODEL_LARGE=up/large\n"
    async with served(tmp_path / ".env", text) as gateway:
        stop = asyncio.Event()

        async def keep_calling(*, stream: bool) -> list[str]:
            ended = []
            while not stop.is_set():
                ended.append((await call(gateway.client, "large", stream=stream)).outcome)
            return ended

        callers = [asyncio.create_task(keep_calling(stream=bool(n % 2))) for n in range(8)]
        await until(gateway, "/health/ready", lambda told: told["status"] == "ready", within_s=30)
        await up.wait_for(lambda log: len(log) > 50)
        redis.kill()
        await until(gateway, "/health/ready", _says("degraded"), within_s=30)
        served_by_then = len(up.log)
        await up.wait_for(lambda log: len(log) > served_by_then + 50)
        redis.start()
        await until(gateway, "/health/ready", _says("ready"), within_s=30)
        stop.set()
        ended = [outcome for outcomes in await asyncio.gather(*callers) for outcome in outcomes]
        assert set(ended) == {"whole"}
        assert len(ended) > 100


def _says(status: str) -> Any:
    return lambda told: (told["status"], told["dependencies"]["redis"]["status"]) == (status, status)
