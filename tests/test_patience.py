"""One timer for many waits does what a timer for each does."""

from __future__ import annotations

import asyncio

import pytest

from app.patience import Patience


def _soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_wait_that_is_too_long_times_out() -> None:
    patience = Patience()
    with pytest.raises(TimeoutError), patience.until(_soon(0.02)):
        await asyncio.Event().wait()


async def test_waits_go_on_past_the_limit_of_the_first() -> None:
    patience, loop = Patience(), asyncio.get_running_loop()
    end = _soon(0.15)
    while loop.time() < end:
        with patience.until(_soon(0.05)):
            await asyncio.sleep(0.005)
    with pytest.raises(TimeoutError), patience.until(_soon(0.02)):
        await asyncio.Event().wait()
    assert end <= loop.time() < end + 0.15


async def test_a_shorter_limit_holds_after_a_longer_one() -> None:
    patience, began = Patience(), _soon(0)
    with patience.until(_soon(60)):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), patience.until(_soon(0.02)):
        await asyncio.Event().wait()
    assert _soon(0) - began < 30


async def test_what_strikes_between_two_waits_harms_none() -> None:
    patience = Patience()
    with patience.until(_soon(0.01)):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    with patience.until(_soon(60)):
        await asyncio.sleep(0)
    patience.end()


async def test_a_cancellation_from_outside_is_none_of_its_own() -> None:
    async def wait() -> None:
        with Patience().until(_soon(60)):
            waiting.set()
            await asyncio.Event().wait()

    waiting = asyncio.Event()
    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inside_of_another_limit_each_strikes_for_itself() -> None:
    async def inner() -> None:
        with Patience().until(_soon(60)):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inner(), 0.02)
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError), Patience().until(_soon(0.02)):
            await asyncio.Event().wait()


async def test_errors_pass() -> None:
    with pytest.raises(KeyError), Patience().until(_soon(60)):
        raise KeyError("x")
