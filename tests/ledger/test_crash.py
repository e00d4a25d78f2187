"""What the machine does to the ledger: kills, a full disk, a database that is gone. The callers notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.ledger.postgres import PostgresServer
from tests.processes import served
from tests.upstream import Upstream

RATE = 500
"""Calls a second."""
BODY = b'{"model": "large", "messages": [{"role": "user", "content": "hello there"}]}'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def rows(file: Path, what: str = "request_id") -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return [each for (each,) in database.execute(f"SELECT {what} FROM calls")]


async def ready(client: Any, name: str, wanted: str) -> None:
    """Wait until readiness says this of a dependency."""
    async with asyncio.timeout(60):
        while True:
            told = (await client.get("/health/ready")).json()["dependencies"]
            if wanted in str(told[name]):
                return
            await asyncio.sleep(0.05)


async def test_a_full_disk_costs_no_call_and_no_row(small_disk: Path, start: Start, up: Upstream) -> None:
    async with start(f"DATA_DIR={small_disk}\nMODEL_LARGE=up/large\nON_WEAK=serve\n", up=up) as sluice:
        await ready(sluice.client, "database", "ready")
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        statuses = [(await sluice.chat("large", f"call {number}")).status_code for number in range(200)]
        assert set(statuses) == {200}
        await ready(sluice.client, "ledger", "takes nothing")
        assert (await sluice.client.get("/health/ready")).json()["status"] == "degraded"
        filler.unlink()
        await ready(sluice.client, "ledger", "'status': 'ready'")
    assert len(rows(small_disk / "sluice.db")) == 200


class Load:
    """Calls at a steady rate on connections that are kept: a client that costs little beside the gateway.

    Attributes:
        answered: by request id, when (monotonic).
        bad: statuses other than 200, and what broke.
    """

    def __init__(self, port: int, rate: float, key: str = "-") -> None:
        self._port = port
        self._rate = rate
        self._key = key
        self._over = asyncio.Event()
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self.answered: dict[str, float] = {}
        self.bad: list[Any] = []

    async def run(self) -> None:
        """Make calls until told to stop."""
        await asyncio.gather(*(self._connection() for _ in range(64)))

    def stop(self) -> None:
        """Begin no more calls."""
        self._over.set()

    async def _connection(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(writer):
                while await self._turn():
                    await self._call(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:  # the gateway is gone
            self.bad.append(error)

    async def _turn(self) -> bool:
        """Wait until the next call is due; False where there is to be none."""
        due = self._began + next(self._numbers) / self._rate - time.monotonic()
        if due > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), due)
        return not self._over.is_set()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = f"k-{time.monotonic_ns()}"
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._key}\r\n"
        writer.write(f"{head}x-request-id: {name}\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(told.partition(b"content-length: ")[2].partition(b"\r")[0]))
        if told.startswith(b"http/1.1 200 "):
            self.answered[name] = time.monotonic()
        else:
            self.bad.append(told.partition(b"\r")[0])


CENT = Decimal("0.01")


async def key_of(client: Any) -> str:
    """Make a key with a budget."""
    made = await client.post("/admin/keys", json={"name": "load", "budget_day_usd": "100000"})
    key: str = made.json()["key"]
    return key


async def spent_cents(client: Any) -> int:
    """Return how many cents the key has spent, as its budget counts them."""
    (key,) = (await client.get("/admin/keys")).json()["keys"]
    return int(Decimal(str(key["spent_day_usd"])) / CENT)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_kill_9_under_load_ten_times_loses_at_most_the_last_second(tmp_path: Path, up: Upstream) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nMLX_ENABLED=false\nMODEL_LARGE=up/large\nON_WEAK=serve\nCACHE=off\n"
    text += f"DATA_DIR={tmp_path}/d\nPRICES_FILE={tmp_path}/prices.yaml\n"
    (tmp_path / "prices.yaml").write_text(f"up/large: {{input: 0, output: 0, request: {CENT}}}\n")
    key, sent, recent = "", 0, 0
    for round_ in range(10):
        async with served(tmp_path / ".env", text) as gateway:
            await ready(gateway.client, "database", "ready")
            key = key or await key_of(gateway.client)
            load = Load(gateway.port, RATE, key)
            running = asyncio.create_task(load.run())
            await asyncio.sleep(4)
            os.kill(gateway.process.pid, signal.SIGKILL)
            killed = time.monotonic()
            load.stop()
            await running
            await gateway.ended()
        ids, sent = load.answered, len(up.log)
        recent += sum(at > killed - 1.0 for at in ids.values())
        async with served(tmp_path / ".env", text) as gateway:  # the spill file of the dead one is taken over
            await ready(gateway.client, "database", "ready")
            await ready(gateway.client, "ledger", "'status': 'ready'")
            cents = await spent_cents(gateway.client)
        kept = set(rows(tmp_path / "d" / "sluice.db"))
        with contextlib.closing(sqlite3.connect(tmp_path / "d" / "sluice.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        missing = [killed - at for name, at in ids.items() if name not in kept]
        lost_s = max(missing, default=0.0)
        told = f"{len(ids) / 4:.0f} answered a second, {len(missing)} missing, the oldest {lost_s:.2f} s old"
        print(f"round {round_}: {told}; of {sent} calls sent so far the budget counts {cents}")  # noqa: T201
        assert lost_s <= 1.0
        assert sent - 64 * (round_ + 1) - recent <= cents <= sent  # what was on its way at a kill is in neither
    assert len(set(rows(tmp_path / "d" / "sluice.db"))) == len(rows(tmp_path / "d" / "sluice.db"))


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_postgres_stopped_for_thirty_seconds_under_load_costs_nothing(tmp_path: Path, up: Upstream) -> None:
    server = PostgresServer()
    try:
        server.start()
        text = f"BACKENDS__UP__BASE_URL={up.url}\nMLX_ENABLED=false\nMODEL_LARGE=up/large\nON_WEAK=serve\nCACHE=off\n"
        text += f"DATA_DIR={tmp_path}/d\nDATABASE_URL={server.url}\n"
        async with served(tmp_path / ".env", text) as gateway:
            await ready(gateway.client, "database", "ready")
            load = Load(gateway.port, 100)
            running = asyncio.create_task(load.run())
            await asyncio.sleep(3)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(30)
            await ready(gateway.client, "ledger", "degraded")
            await asyncio.to_thread(server.start)
            await asyncio.sleep(3)
            load.stop()
            await running
            await ready(gateway.client, "ledger", "'status': 'ready'")
            assert await gateway.leave() == 0
        import asyncpg  # type: ignore[import-untyped]

        connection = await asyncpg.connect(server.url)
        kept = await connection.fetch("SELECT request_id FROM calls")
        await connection.close()
        print(f"{len(load.answered)} calls, {len(load.bad)} failed, {len(kept)} rows")  # noqa: T201
        assert load.bad == []
        assert sorted(row["request_id"] for row in kept) == sorted(load.answered)
    finally:
        server.remove()
