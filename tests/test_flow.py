from __future__ import annotations

import asyncio

from app.flow import Flow


async def _rounds(flow: Flow, calls: int) -> list[int]:
    """Return in which rounds of the event loop these calls began, that came at once."""
    loop = asyncio.get_running_loop()
    now = 0
    began: list[int] = []

    def count() -> None:
        nonlocal now
        now += 1
        if len(began) < calls:
            loop.call_soon(count)

    async def call() -> None:
        await flow.give_way()
        began.append(now)

    count()
    await asyncio.gather(*(call() for _ in range(calls)))
    return began


def _flowing(*, alone: bool, events: int = 500) -> Flow:
    flow = Flow()
    for _ in range(events):
        flow.relayed(asyncio.get_running_loop().time(), alone=alone)
    return flow


async def test_calls_begin_one_a_round_while_streams_flow() -> None:
    began = await _rounds(_flowing(alone=True), 5)
    assert sorted(set(began)) == began


async def test_calls_begin_at_once_where_no_stream_flows() -> None:
    assert len(set(await _rounds(Flow(), 5))) == 1


async def test_calls_begin_at_once_where_events_pile_up() -> None:
    assert len(set(await _rounds(_flowing(alone=False), 5))) == 1


async def test_streams_that_have_ended_hold_nobody_up() -> None:
    flow = Flow()
    for _ in range(500):
        flow.relayed(asyncio.get_running_loop().time() - 1, alone=True)
    assert len(set(await _rounds(flow, 5))) == 1


async def test_a_call_that_is_given_up_holds_nobody_up() -> None:
    flow = _flowing(alone=True)
    first, gone, last = (asyncio.ensure_future(flow.give_way()) for _ in range(3))
    await first
    assert not gone.done()
    gone.cancel()
    await last
    assert gone.cancelled()
