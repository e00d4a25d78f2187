from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.engine.room import Resident, make_room

RESIDENT = st.builds(
    Resident,
    name=st.uuids().map(str),
    cost=st.integers(1, 50),
    busy=st.booleans(),
    wanted=st.booleans(),
    pinned=st.booleans(),
    last_use=st.floats(0, 100),
)


@given(st.lists(RESIDENT, max_size=6), st.integers(1, 80), st.integers(20, 150), st.booleans())
def test_evictions_are_enough_and_never_of_busy_or_pinned(
    residents: list[Resident], cost: int, budget: int, impatient: bool
) -> None:
    room = make_room(residents, cost, budget, impatient=impatient)
    by_name = {r.name: r for r in residents}
    free = budget - sum(r.cost for r in residents)
    assert not any(by_name[name].busy or by_name[name].pinned for name in room.evict)
    assert not any(by_name[name].pinned for name in room.drain)
    if room.fits:
        assert free + sum(by_name[name].cost for name in room.evict) >= cost
        assert not room.drain
    if room.never:
        assert budget - sum(r.cost for r in residents if r.pinned) < cost
    elif impatient:
        leaving = {*room.evict, *room.drain}
        assert room.fits or free + sum(by_name[name].cost for name in leaving) >= cost


def test_idle_ones_leave_oldest_first_and_no_more_than_needed() -> None:
    old = Resident("old", 10, busy=False, wanted=False, pinned=False, last_use=1)
    new = Resident("new", 10, busy=False, wanted=False, pinned=False, last_use=2)
    assert make_room([new, old], 8, 20, impatient=False).evict == ("old",)
    assert make_room([new, old], 20, 20, impatient=False).evict == ("old", "new")
    assert make_room([new, old], 1, 40, impatient=False).evict == ()


def test_a_busy_one_is_waited_for_until_patience_ends() -> None:
    busy = Resident("busy", 10, busy=True, wanted=True, pinned=False, last_use=1)
    assert not make_room([busy], 10, 15, impatient=False).fits
    assert make_room([busy], 10, 15, impatient=True).drain == ("busy",)
