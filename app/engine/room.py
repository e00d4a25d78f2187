"""Which models leave so that another fits: pure decisions over what is resident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory or on its way there.

    Attributes:
        cost: bytes it takes of the budget.
        busy: whether requests run on it, or it is being loaded.
        wanted: whether requests wait for it.
        pinned: whether it must stay.
        last_use: on the caller's clock, in seconds.
    """

    name: str
    cost: int
    busy: bool
    wanted: bool
    pinned: bool
    last_use: float


@dataclass(frozen=True, slots=True)
class Room:
    """What to do for room.

    Attributes:
        evict: models to unload now.
        drain: models that get no new request, so that they become idle.
        fits: whether the evictions are enough.
        never: whether nothing would ever be enough.
    """

    evict: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    fits: bool = False
    never: bool = False


def make_room(residents: Iterable[Resident], cost: int, budget: int, *, impatient: bool) -> Room:
    """Decide what must go before a model of ``cost`` bytes is loaded.

    Idle models go first, least recently used before others. Busy ones are never evicted: with ``impatient`` they are
    drained, the least recently used first, until what they hold would be enough.
    """
    everyone = list(residents)
    free = budget - sum(r.cost for r in everyone)
    movable = sorted((r for r in everyone if not r.pinned), key=lambda r: r.last_use)
    if free + sum(r.cost for r in movable) < cost:
        return Room(never=True)
    idle = [r for r in movable if not r.busy and (impatient or not r.wanted)]
    evict, free = _until(idle, free, cost)
    if free >= cost:
        return Room(evict=evict, fits=True)
    if not impatient:
        return Room()
    drain, _ = _until([r for r in movable if r.busy], free, cost)
    return Room(evict=evict, drain=drain)


def _until(candidates: list[Resident], free: int, cost: int) -> tuple[tuple[str, ...], int]:
    chosen: list[str] = []
    for resident in candidates:
        if free >= cost:
            break
        chosen.append(resident.name)
        free += resident.cost
    return tuple(chosen), free
