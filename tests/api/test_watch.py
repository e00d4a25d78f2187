"""Clients that leave: everything that was held for them is given back at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest

from app.api.watch import ClientWatch
from tests.conftest import Running, Start
from tests.upstream import Upstream


def _request(model: str, *, stream: bool) -> bytes:
    body = orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "word " * 60}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _vanish(sluice: Running, dice: random.Random, model: str, *, stream: bool) -> None:
    """Send a call and abort the connection at some moment, with a reset or with a proper close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sluice.client.base_url.port)
    request = _request(model, stream=stream)
    writer.write(request[: dice.choice([len(request), len(request), len(request), len(request) // 2])])
    patience = dice.choice([0.0, dice.random() * 0.05, dice.random() * 0.5])
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(patience):
            await reader.readuntil(dice.choice([b"HTTP", b"word", b"never"]))
    if dice.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


def _all_free(sluice: Running) -> bool:
    gateway = sluice.gateway
    return gateway.inflight == 0 and all(lane.gate.in_use == 0 and lane.gate.waiting == 0 for lane in gateway.lanes)


async def _until(done: Any, limit_s: float) -> None:
    """Return once this is so: nobody tells when the last task has gone."""
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "never so"
        await asyncio.sleep(0.001)


async def test_300_clients_that_vanish_leave_nothing_behind(up: Upstream, start: Start) -> None:
    dice = random.Random(7)
    models = ["up/a-pace:20", "up/b-slow:2", "up/c-hang", "up/d-late:2", "up/e-pace:5", "up/f-stall:3"]
    async with start("MODEL_LARGE=up/a\nSLOTS=40\nLINE=400\nRETRIES=0\n", up=up) as sluice:
        assert (await sluice.chat("up/a")).status_code == 200
        before = len(asyncio.all_tasks())
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(_vanish(sluice, dice, dice.choice(models), stream=dice.random() < 0.6))
        await _until(lambda: _all_free(sluice) and up.active == 0, 3)
        assert sum(attempt.ended == "client_closed" for attempt in up.log) > 50  # who leaves at once reaches none
        await _until(lambda: len(asyncio.all_tasks()) - up.open <= before, 3)
        assert (await sluice.chat("up/a")).status_code == 200
        assert b"sluice_inflight 0.0" in sluice.gateway.metrics.text()
        assert all(lane.breaker.state == "closed" for lane in sluice.gateway.lanes)


@pytest.mark.parametrize(
    ("model", "stream"),
    [("up/c-hang", False), ("up/c-hang", True), ("up/b-slow:5", False), ("up/b-slow:5", True), ("up/d-pace:50", True)],
)
async def test_a_single_one_that_leaves_closes_the_backend_within_100_ms(
    sluice: Running, up: Upstream, model: str, stream: bool
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", sluice.client.base_url.port)
    writer.write(_request(model, stream=stream))
    await up.wait_for(bool)
    if "pace" in model:
        await up.wait_for(lambda log: log[0].chunks > 1)
    left = time.monotonic()
    writer.transport.abort()
    (attempt,) = await up.wait_for(lambda log: log[0].ended != "open", 5)
    assert attempt.ended == "client_closed"
    assert time.monotonic() - left < 0.1
    await _until(partial(_all_free, sluice), 1)
    assert 'outcome="abandoned"' in sluice.gateway.metrics.text().decode()


class _Left:
    """A caller that leaves when it is told to, under a server that tells through ``receive`` alone."""

    def __init__(self) -> None:
        self._gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._gone.set()

    def watch(self) -> ClientWatch:
        return ClientWatch(self.receive)


class _Known(_Left):
    """One under Sluice's own server."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    def write_now(self, data: bytes) -> bool:
        return bool(data)

    def leave(self) -> None:
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()

    def watch(self) -> ClientWatch:
        return ClientWatch(self.receive, self)


@pytest.fixture(params=[_Left, _Known])
def caller(request: pytest.FixtureRequest) -> _Left:
    made: _Left = request.param()
    return made


@pytest.mark.parametrize("before", [False, True])
async def test_the_block_is_cancelled_and_nothing_else(caller: _Left, before: bool) -> None:
    if before:
        caller.leave()
    async with caller.watch() as watch:
        if not before:
            caller.leave()
        await asyncio.Event().wait()
    assert watch.gone
    await asyncio.sleep(0)  # would raise, were the cancellation still due
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_leaves_after_the_answer_is_no_deserter(caller: _Left) -> None:
    async with caller.watch() as watch:
        watch.answered()
        caller.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    caller.leave()
    assert not watch.gone


async def test_an_error_of_the_block_passes(caller: _Left) -> None:
    with pytest.raises(LookupError):
        async with caller.watch():
            raise LookupError


async def test_a_cancellation_from_outside_passes(caller: _Left) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with caller.watch():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
