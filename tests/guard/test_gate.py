from __future__ import annotations

import asyncio
import random

import pytest

from app.guard.gate import Full, Gate, LineTimeout, Slot
from tests.guard.clock import Clock


def soon(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def taken(gate: Gate) -> Slot:
    slot = gate.try_enter()
    assert slot is not None
    return slot


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_slots_then_nothing() -> None:
    gate = Gate(2, 0)
    first = taken(gate)
    taken(gate)
    assert gate.try_enter() is None
    first.leave()
    assert gate.in_use == 1
    taken(gate)


def test_leaving_twice_frees_one_slot() -> None:
    gate = Gate(2, 0)
    first = taken(gate)
    taken(gate)
    first.leave()
    first.leave()
    assert gate.in_use == 1


def test_a_slot_is_left_at_the_end_of_its_block() -> None:
    gate = Gate(1, 0)
    with pytest.raises(KeyError), taken(gate):
        raise KeyError
    assert gate.in_use == 0


@pytest.mark.parametrize(("slots", "line"), [(0, 1), (-1, 1), (1, -1)])
def test_impossible_sizes(slots: int, line: int) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Gate(slots, line)


async def test_a_full_line_turns_away_with_retry_after() -> None:
    gate = Gate(1, 1)
    inside = taken(gate)
    waiting = asyncio.create_task(gate.enter(soon()))
    await settle()
    assert gate.full
    assert gate.waiting == 1
    with pytest.raises(Full) as full:
        await gate.enter(soon())
    assert full.value.status == 503
    assert full.value.retry_after_s == 1.0
    inside.leave()
    (await waiting).leave()
    assert (gate.in_use, gate.waiting) == (0, 0)


async def test_first_come_first_served() -> None:
    gate = Gate(1, 10)
    inside = taken(gate)
    order: list[int] = []

    async def call(number: int) -> None:
        with await gate.enter(soon()):
            order.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(10)]
    await settle()
    inside.leave()
    assert gate.try_enter() is None, "a newcomer overtook the line"
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_waiting_past_the_limit() -> None:
    gate = Gate(1, 5)
    inside = taken(gate)
    with pytest.raises(LineTimeout):
        await gate.enter(soon(0.01))
    assert gate.waiting == 0
    inside.leave()
    assert gate.in_use == 0


async def test_one_who_leaves_the_line_is_passed_over() -> None:
    gate = Gate(1, 5)
    inside = taken(gate)
    first, second = (asyncio.create_task(gate.enter(soon())) for _ in range(2))
    await settle()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    inside.leave()
    (await second).leave()
    assert gate.in_use == 0


async def test_a_slot_handed_to_one_who_is_cancelled_in_the_same_instant_goes_on() -> None:
    gate = Gate(1, 5)
    inside = taken(gate)
    first, second = (asyncio.create_task(gate.enter(soon())) for _ in range(2))
    await settle()
    inside.leave()  # handed to the first, which has not run yet
    first.cancel()
    (await second).leave()
    assert first.cancelled()
    assert (gate.in_use, gate.waiting) == (0, 0)


async def test_growing_lets_the_line_in_and_shrinking_waits() -> None:
    gate = Gate(1, 5)
    slots = [taken(gate)]
    tasks = [asyncio.create_task(gate.enter(soon())) for _ in range(3)]
    await settle()
    gate.resize(3)
    await settle()
    assert (gate.in_use, gate.waiting) == (3, 1)
    gate.resize(1, line=0)
    slots += [task.result() for task in tasks[:2]]
    for slot in slots[:2]:
        slot.leave()
    assert (gate.in_use, gate.waiting) == (1, 1)
    slots[2].leave()
    (await tasks[2]).leave()
    assert gate.in_use == 0


@pytest.mark.parametrize(("hold_s", "expected"), [(0.1, 1.0), (8.0, 4.0), (1000.0, 60.0)])
def test_retry_after_is_hold_time_by_place_in_line(hold_s: float, expected: float) -> None:
    clock = Clock()
    gate = Gate(2, 4, clock)
    slot = taken(gate)
    clock.pass_s(hold_s)
    slot.leave()
    assert gate.retry_after_s() == expected


def test_retry_after_follows_slowly() -> None:
    clock = Clock()
    gate = Gate(1, 0, clock)
    for hold_s in (8.0, 16.0):
        slot = taken(gate)
        clock.pass_s(hold_s)
        slot.leave()
    assert gate.retry_after_s() == 9.0


class Crowd:
    """Callers that come, wait for as long as they like, and stay for a while."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.gate = Gate(3, 4)
        self.most = 0
        self.outcomes = {"served": 0, "full": 0, "late": 0}

    async def call(self) -> None:
        try:
            slot = await self.gate.enter(soon(self.rng.choice([0.0, 0.0005, 60.0])))
        except Full as full:
            self.outcomes["late" if isinstance(full, LineTimeout) else "full"] += 1
            return
        with slot:
            self.most = max(self.most, self.gate.in_use)
            for _ in range(self.rng.randrange(5)):
                await asyncio.sleep(0)
        self.outcomes["served"] += 1


@pytest.mark.parametrize("seed", range(20))
async def test_random_leaving_cancelling_and_resizing_loses_no_slot(seed: int) -> None:
    crowd = Crowd(seed)
    tasks: list[asyncio.Task[None]] = []
    for _ in range(400):
        tasks.append(asyncio.create_task(crowd.call()))
        if crowd.rng.random() < 0.4:
            crowd.rng.choice(tasks[-6:]).cancel()
        if crowd.rng.random() < 0.05:
            crowd.gate.resize(crowd.rng.randint(1, 4))
        if crowd.rng.random() < 0.4:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (crowd.gate.in_use, crowd.gate.waiting) == (0, 0)
    assert crowd.most <= 4
    assert all(crowd.outcomes.values()), crowd.outcomes
    crowd.gate.resize(3)
    assert [crowd.gate.try_enter() is not None for _ in range(4)] == [True, True, True, False]
