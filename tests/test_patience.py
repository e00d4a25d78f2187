"""One timer for all waits does what a timer for each does."""

from __future__ import annotations

import asyncio

import pytest

from app.patience import Until


def _soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_wait_that_is_too_long_times_out() -> None:
    with pytest.raises(TimeoutError), Until(_soon(0.02)):
        await asyncio.Event().wait()


async def test_waits_go_on_past_the_limit_of_the_first() -> None:
    loop = asyncio.get_running_loop()
    end = _soon(0.15)
    while loop.time() < end:
        with Until(_soon(0.05)):
            await asyncio.sleep(0.005)
    with pytest.raises(TimeoutError), Until(_soon(0.02)):
        await asyncio.Event().wait()
    assert end <= loop.time() < end + 0.15


async def test_a_shorter_limit_holds_after_a_longer_one() -> None:
    began = _soon(0)
    with Until(_soon(60)):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), Until(_soon(0.02)):
        await asyncio.Event().wait()
    assert _soon(0) - began < 30


async def test_each_of_many_waits_ends_in_its_own_time() -> None:
    async def wait(seconds: float) -> float:
        limit = _soon(seconds)
        with pytest.raises(TimeoutError), Until(limit):
            await asyncio.Event().wait()
        return _soon(0) - limit

    late = await asyncio.gather(*(wait(number % 7 * 0.02) for number in range(50)))
    assert all(-0.002 <= each < 1 for each in late)


async def test_a_limit_that_has_passed_ends_the_wait_at_once() -> None:
    with pytest.raises(TimeoutError), Until(_soon(-1)):
        await asyncio.Event().wait()


async def test_what_strikes_after_a_wait_harms_nobody() -> None:
    with Until(_soon(0.01)):
        await asyncio.sleep(0)
    with Until(_soon(60)):
        await asyncio.sleep(0.03)
    await asyncio.sleep(0)


async def test_another_event_loop_has_a_timer_of_its_own() -> None:
    async def wait() -> bool:
        with pytest.raises(TimeoutError), Until(_soon(0.01)):
            await asyncio.Event().wait()
        return True

    with Until(_soon(60)):
        assert await asyncio.to_thread(asyncio.run, wait())


async def test_a_cancellation_from_outside_is_none_of_its_own() -> None:
    async def wait() -> None:
        with Until(_soon(60)):
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
        with Until(_soon(60)):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inner(), 0.02)
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError), Until(_soon(0.02)):
            await asyncio.Event().wait()


async def test_errors_pass() -> None:
    with pytest.raises(KeyError), Until(_soon(60)):
        raise KeyError("x")
