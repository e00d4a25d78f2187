from __future__ import annotations

import asyncio

import pytest

from app.call import Target
from app.config import BackendConfig
from app.guard.lanes import Lane, Lanes
from app.parity import calm


def lane(slots: int = 4, dialect: str = "openai", *, local: bool = False) -> Lane:
    config = BackendConfig("up", "http://up/v1", dialect=dialect, local=local, slots=slots)
    return Lanes().of(config, Target("up", "m"))


async def test_work_is_done_where_nobody_waits() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    await calm.room([lane()])
    assert await calm.giving_way([lane()], work()) == 7


async def test_work_ends_where_a_caller_stands_in_line() -> None:
    busy, begun, ended = lane(slots=1), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        with busy.gate.try_enter() or pytest.fail("the slot was taken"):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async def caller() -> None:
        await begun.wait()
        with await busy.gate.enter(loop.time() + 5):
            assert ended.is_set()

    called = asyncio.create_task(caller())
    with pytest.raises(calm.GaveWay):
        await calm.giving_way([busy], work())
    await called


async def test_what_fails_fails() -> None:
    async def work() -> None:
        raise ValueError("as such")

    with pytest.raises(ValueError, match="as such"):
        await calm.giving_way([], work())


@pytest.mark.parametrize(("busy", "inside"), [(lane(slots=4), 3), (lane(slots=256, dialect="mlx", local=True), 1)])
async def test_no_room(busy: Lane, inside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm, "_PATIENCE_S", 0.05)
    slots = [busy.gate.try_enter() for _ in range(inside)]
    with pytest.raises(calm.GaveWay):
        await calm.room([busy])
    for slot in slots:
        assert slot is not None
        slot.leave()
    await calm.room([busy])
