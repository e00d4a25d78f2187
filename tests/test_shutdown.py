"""SIGTERM under load: nothing that was accepted is cut, and the exit status is 0."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from tests.failure_play import call
from tests.plain import PLAIN
from tests.processes import Served, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upstream import Upstream


async def keep_calling(gateway: Served, stop: asyncio.Event, *, stream: bool) -> list[str]:
    """Call until the gateway refuses new connections; return how each call ended."""
    ended = []
    async with httpx.AsyncClient(verify=PLAIN, base_url=gateway.client.base_url, timeout=30) as client:
        while not stop.is_set():
            try:
                ended.append((await call(client, "up/m-pace:10", stream=stream)).outcome)
            except httpx.ConnectError:
                break
            except httpx.TransportError as error:
                ended.append(f"cut: {error!r}")
    return ended


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_under_load_cuts_no_call_and_exits_0(up: Upstream, tmp_path: Path, workers: int) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nWORKERS={workers}\n"
    async with served(tmp_path / ".env", text) as gateway:
        stop = asyncio.Event()
        callers = [asyncio.create_task(keep_calling(gateway, stop, stream=bool(n % 2))) for n in range(16)]
        await up.wait_for(lambda log: sum(attempt.ended == "done" for attempt in log) >= 64, 30)
        assert await gateway.leave() == 0
        stop.set()
        ended = [outcome for outcomes in await asyncio.gather(*callers) for outcome in outcomes]
        assert len(ended) >= 64
        assert set(ended) == {"whole"}


async def test_a_stream_under_way_is_finished(up: Upstream, tmp_path: Path) -> None:
    async with served(tmp_path / ".env", f"BACKENDS__UP__BASE_URL={up.url}\n") as gateway:
        under_way = asyncio.create_task(call(gateway.client, "up/m-pace:150", stream=True))
        await up.wait_for(lambda log: bool(log) and log[0].chunks > 2)
        assert await gateway.leave() == 0
        assert (await under_way).outcome == "whole"


async def test_leaving_is_bounded(up: Upstream, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nSHUTDOWN_S=1\nIDLE_TIMEOUT_S=60\n"
    async with served(tmp_path / ".env", text) as gateway:
        under_way = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=BODY))
        await up.wait_for(bool)
        begun = time.monotonic()
        assert await gateway.leave() == 0
        assert time.monotonic() - begun < 8
        told = await under_way
        assert (told.status_code, told.json()["error"]["code"]) == (503, "shutting_down")


async def test_what_is_cut_at_the_end_is_kept_also_for_who_reads_nothing(up: Upstream, tmp_path: Path) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nSHUTDOWN_S=1\nSLOTS=300\nLINE=300\nDATA_DIR={tmp_path}\n"
    async with served(tmp_path / ".env", text) as gateway:
        many = [asyncio.create_task(call(gateway.client, "up/m-dripword:200", stream=True)) for _ in range(150)]
        port = gateway.client.base_url.port
        _, stalled = await asyncio.open_connection("127.0.0.1", port, limit=1)  # and nobody reads
        body = orjson.dumps(BODY | {"model": "up/m-endless", "stream": True})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        stalled.write(head.encode() + body)
        await up.wait_for(lambda log: len(log) == 151 and all(each.chunks > 5 for each in log), 20)
        endless = next(each for each in up.log if each.body["model"] == "m-endless")
        heard = -1
        while heard != endless.chunks:  # until nobody takes any more of it
            heard = endless.chunks
            await asyncio.sleep(0.3)
        begun = time.monotonic()
        assert await gateway.leave() == 0
        assert time.monotonic() - begun < 15
        assert {each.outcome for each in await asyncio.gather(*many)} == {"event"}
        stalled.transport.abort()
    with contextlib.closing(sqlite3.connect(tmp_path / "sluice.db")) as database:
        assert database.execute("SELECT count(*) FROM calls").fetchone() == (151,)


BODY = {"model": "up/m-hang", "messages": [{"role": "user", "content": "hello"}]}


async def test_a_second_sigint_does_not_wait(up: Upstream, tmp_path: Path) -> None:
    async with served(tmp_path / ".env", f"BACKENDS__UP__BASE_URL={up.url}\n") as gateway:
        under_way = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=BODY))
        await up.wait_for(bool)
        gateway.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)  # two signals of one kind that come at once are one
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.ended(5) == 0
        (told,) = await asyncio.gather(under_way, return_exceptions=True)
        assert not isinstance(told, httpx.Response) or told.status_code >= 500
