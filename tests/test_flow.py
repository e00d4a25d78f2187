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


async def test_all_begin_once_no_stream_flows_any_more() -> None:
    flow = _flowing(alone=True)
    waiting = [asyncio.ensure_future(flow.give_way(later=bool(n % 2))) for n in range(10)]
    await waiting[0]
    for _ in range(500):
        flow.relayed(asyncio.get_running_loop().time(), alone=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.done() for each in waiting)


async def test_what_nobody_waits_for_has_its_turn_though_calls_come_without_end() -> None:
    flow = _flowing(alone=True)
    served: list[str] = []

    async def calls() -> None:
        while "record" not in served:
            await flow.give_way()
            served.append("call")
            records.append(asyncio.ensure_future(record()))

    async def record() -> None:
        await flow.give_way(later=True)
        served.append("record")

    records: list[asyncio.Future[None]] = []
    await asyncio.wait_for(asyncio.gather(*(calls() for _ in range(8))), 5)
    assert served.index("record") < 30
    await asyncio.gather(*records)
