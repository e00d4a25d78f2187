"""What gateways tell each other about their lanes: the workers of a host, and hosts that have a Redis in common.

A call never waits for any of this. Rounds in the background exchange three things with each store: words (this lane is
open), orders (an operator forces it) and counts. Words and orders carry a time and the newest wins, wherever it comes
from and however often, so a store may lose everything, or come twice, and all still end with the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from app.guard.breaker import Breaker, Forced

# A round four times a second: a change needs one round to be told and one to be heard, so half of the second allowed.
_EVERY_S = 0.25
# A probe's turn that nobody uses is anybody's after this; its holder believes in it for a second less.
_LEASE_S = 4.0
_USABLE_S = _LEASE_S - 1.0
# Who did not use its turn leaves it to the others for two rounds.
_PAUSE_S = 2 * _EVERY_S
# Who was asked for a lane this long ago still wants to probe it: calls may come minutes apart.
_INTEREST_S = 300.0
# Words older than this are dropped everywhere: twice the time after which an untouched open lane is forgiven.
KEEP_S = 3600.0


class Word(NamedTuple):
    """What somebody found out about a lane; ``at_us`` is microseconds since 1970."""

    at_us: int
    state: Literal["closed", "open", "dead"]
    reason: str = ""
    status: int | None = None


class Order(NamedTuple):
    """What an operator wants of a lane, None being automatic; ``at_us`` is microseconds since 1970."""

    at_us: int
    forced: Forced | None


@dataclass(frozen=True, slots=True)
class News:
    """One side of an exchange, by lane.

    Attributes:
        words: what is known of lanes.
        orders: what operators want.
        counts: (failures, calls) in the windows: one's own when telling, all others' together when hearing.
    """

    words: Mapping[str, Word] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class StoreLost(Exception):  # noqa: N818 - a state of affairs, told to whoever looks after the store
    """The store cannot be reached or does not answer as it should."""


class Store(Protocol):
    """Where gateways meet."""

    @property
    def name(self) -> str:
        """What an operator calls it."""

    async def exchange(self, told: News) -> News:
        """Tell what is new here, and hear every word and order there is. Raises StoreLost."""

    async def take_probe(self, lane: str, lease_s: float) -> bool:
        """Take or keep the single right to probe a lane for so many seconds. Raises StoreLost."""

    async def drop_probe(self, lane: str) -> None:
        """Give that right back. Raises StoreLost."""


_Dated = TypeVar("_Dated", Word, Order)


def newer(mine: Mapping[str, _Dated], theirs: Mapping[str, _Dated]) -> dict[str, _Dated]:
    """Return what is in ``mine`` and is missing or older in ``theirs``."""
    return {lane: one for lane, one in mine.items() if lane not in theirs or theirs[lane].at_us < one.at_us}


def add_up(told: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, tuple[int, int]]:
    """Return the (failures, calls) of several gateways together, by lane."""
    total: dict[str, tuple[int, int]] = {}
    for counts in told:
        for lane, (failures, calls) in counts.items():
            before = total.get(lane, (0, 0))
            total[lane] = (before[0] + failures, before[1] + calls)
    return total


def fresh(words: Mapping[str, Word], wall_s: float) -> dict[str, Word]:
    """Return the words that are not too old to matter at ``wall_s``, seconds since 1970."""
    oldest_us = int((wall_s - KEEP_S) * 1e6)
    return {lane: word for lane, word in words.items() if word.at_us >= oldest_us}


class Sharing:
    """Keeps this process's breakers and the stores of one mind.

    Args:
        lanes: the breakers by lane; lanes may come and go. A lane's name means the same everywhere.
        stores: from the nearest (this host) to the widest (all hosts). Probes are shared over the widest that works.
        clock: seconds, monotonic.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        lanes: Mapping[str, Breaker],
        stores: Sequence[Store],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._lanes = lanes
        self._stores = stores
        self._clock = clock
        self._wall = wall
        self._words: dict[str, Word] = {}
        self._orders: dict[str, Order] = {}
        self._met: set[str] = set()
        self._heard = {store.name: News() for store in stores}
        self._wanted: dict[str, float] = {}
        self._turns: dict[str, float] = {}
        self._used: set[str] = set()
        self.lost: dict[str, str] = {}

    @property
    def degraded(self) -> str | None:
        """Why sharing does not reach everybody, or None."""
        return "; ".join(f"{name}: {why}" for name, why in self.lost.items()) or None

    async def run(self, every_s: float = _EVERY_S) -> None:
        """Exchange with every store every ``every_s`` seconds until cancelled; a slow store delays no other."""
        async with asyncio.TaskGroup() as group:
            for store in self._stores:
                group.create_task(self._keep_on(store, every_s))

    async def _keep_on(self, store: Store, every_s: float) -> None:
        while True:
            await self.sync(store)
            await asyncio.sleep(every_s)

    async def sync(self, store: Store) -> None:
        """Do one round with one store. A store that is lost is noted in ``lost`` and tried again in the next round."""
        self._look()
        heard = self._heard[store.name]
        told = News(newer(self._words, heard.words), newer(self._orders, heard.orders), self._counts())
        try:
            self._hear(store, await store.exchange(told))
            if store is self._widest():
                await self._share_probes(store)
        except StoreLost as lost:
            self._lose(store, str(lost))

    def force(self, lane: str, forced: Forced | None) -> None:
        """Obey the operator here and now; everybody else hears it in the next rounds."""
        known = self._orders.get(lane)
        self._orders[lane] = Order(self._after(known), forced)
        if lane in self._lanes:
            self._lanes[lane].force(forced)

    def orders(self) -> dict[str, Forced | None]:
        """Return what operators have ordered, by lane; None is automatic again."""
        return {lane: order.forced for lane, order in self._orders.items()}

    # -- telling -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Put what this process found out since the last round into words, and drop old ones.

        A lane out of use for longer than words are kept is put into new words.
        """
        self._words = fresh(self._words, self._wall())
        self._met.intersection_update(self._lanes)
        for lane, breaker in self._lanes.items():
            if lane not in self._met:
                self._meet(lane, breaker)
            known = self._words.get(lane)
            state = "open" if breaker.state == "half_open" else breaker.state
            if breaker.forced is None and state != (known.state if known else "closed"):
                failure = breaker.last_failure
                reason, status = (failure.reason, failure.status) if failure else ("", None)
                self._words[lane] = Word(self._after(known), state, reason, status)

    def _meet(self, lane: str, breaker: Breaker) -> None:
        """Tell a lane that is new here what is already known of it."""
        self._met.add(lane)
        breaker.turn = lambda: self._has_turn(lane)
        if lane in self._words:
            self._adopt(lane, self._words[lane])
        if lane in self._orders:
            breaker.force(self._orders[lane].forced)

    def _after(self, known: Word | Order | None) -> int:
        """Return the time for something said now: later than what it answers, even if our clock is behind."""
        now_us = int(self._wall() * 1e6)
        return now_us if known is None else max(now_us, known.at_us + 1)

    def _counts(self) -> dict[str, tuple[int, int]]:
        counts = {lane: breaker.counts() for lane, breaker in self._lanes.items()}
        return {lane: count for lane, count in counts.items() if count[1]}

    # -- hearing -------------------------------------------------------------------------------------------------------

    def _hear(self, store: Store, news: News) -> None:
        self.lost.pop(store.name, None)
        self._heard[store.name] = news
        for lane, word in newer(fresh(news.words, self._wall()), self._words).items():
            self._words[lane] = word
            self._adopt(lane, word)
        for lane, order in newer(news.orders, self._orders).items():
            self._orders[lane] = order
            if lane in self._lanes:
                self._lanes[lane].force(order.forced)
        if store is self._widest():
            self._set_elsewhere(news.counts)

    def _adopt(self, lane: str, word: Word) -> None:
        if lane in self._lanes:
            self._lanes[lane].adopt(word.state, word.reason, word.status)

    def _set_elsewhere(self, counts: Mapping[str, tuple[int, int]]) -> None:
        for lane, breaker in self._lanes.items():
            breaker.elsewhere = counts.get(lane, (0, 0))

    def _lose(self, store: Store, why: str) -> None:
        self.lost[store.name] = why
        if self._widest() is None:
            self._set_elsewhere({})

    def _widest(self) -> Store | None:
        working = [store for store in self._stores if store.name not in self.lost]
        return working[-1] if working else None

    # -- one probe for all ---------------------------------------------------------------------------------------------

    def _has_turn(self, lane: str) -> bool:
        """Say whether a probe may start now; if not, ask for the turn in the next rounds. With no store, it may."""
        if self._widest() is None:
            return True
        now = self._clock()
        if now < self._turns.get(lane, now):
            self._wanted.pop(lane, None)
            self._used.add(lane)
            return True
        self._wanted[lane] = now
        return False

    async def _share_probes(self, store: Store) -> None:
        await self._drop_unused(store)
        for lane in self._candidates():
            asked_at = self._clock()
            if await store.take_probe(lane, _LEASE_S):
                # Not always as long: calls that come at a steady pace are not to meet nothing but the pauses.
                self._turns[lane] = asked_at + _USABLE_S * random.uniform(0.7, 1)  # noqa: S311 - no secret
        for lane in tuple(self._used):
            await self._keep_or_drop(store, lane)

    def _candidates(self) -> list[str]:
        """Return the lanes whose turn this process is to try for in this round."""
        now = self._clock()
        self._wanted = {
            lane: at
            for lane, at in self._wanted.items()
            if now - at < _INTEREST_S and lane in self._lanes and self._lanes[lane].state != "closed"
        }
        return [lane for lane in self._wanted if lane not in self._turns and self._lanes[lane].probe_due]

    async def _drop_unused(self, store: Store) -> None:
        now = self._clock()
        for lane, until in tuple(self._turns.items()):
            if lane not in self._used and now >= until:
                await store.drop_probe(lane)
                if now >= until + _PAUSE_S:
                    del self._turns[lane]

    async def _keep_or_drop(self, store: Store, lane: str) -> None:
        """Keep the turn of a probe under way, and of one that failed until the next is due; drop it otherwise."""
        breaker = self._lanes.get(lane)
        if breaker is None or breaker.state == "closed" or breaker.probe_due:
            self._used.discard(lane)
            self._turns.pop(lane, None)
            await store.drop_probe(lane)
            return
        await store.take_probe(lane, max(_LEASE_S, breaker.probe_in_s))
        if not breaker.probing:
            self._used.discard(lane)
            self._turns.pop(lane, None)
