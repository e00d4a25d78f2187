"""Budgets of keys, as one worker keeps them: reserved before a call, settled after it.

The worker takes small leases from the database and hands out reservations from them, so that most calls wait for
nothing. What calls cost is written with their ledger rows; until then it stays a part of the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from app.errors import PolicyError
from app.ledger.db import DatabaseUnavailableError
from app.ledger.periods import next_day, next_month
from app.ledger.spend import Spend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from app.call import KeyTerms
    from app.ledger.budget_store import BudgetStore
    from app.ledger.db import Database
    from app.ledger.spend import Grant
    from app.trace import Record

_FLUSH_S = 0.2
"""What calls cost is written this often; a worker that is killed forgets no more."""
_MOST_NOTED = 100_000
"""Calls whose cost waits while the database is away; hours of most gateways."""
_ROUND_S = 1.0
_RENEW_S = 5.0
_PATIENCE_S = {True: 12.0, False: 3.0}
"""How long a call asks for a lease until the database counts as away; a file (True) may be busy with other workers."""
_AGAIN_S = 0.1
_LOOK_S = 5.0
"""How often the highest share of a budget is told to the metrics."""
_REFUSED_S = 0.5
"""A key whose budget is used up is not looked up in the database again for so long."""
_UNKNOWN_SHARE = 100
"""While the database is away, a key that was not seen here before may spend this part of its budget."""
_ZERO = Decimal(0)
log = logging.getLogger("sluice")


class BudgetSpentError(PolicyError):
    """A key's budget is used up."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    fault = "policy_budget_spent"


@dataclass(slots=True)
class _Purse:
    """What this worker holds of one key's budget, in USD.

    Attributes:
        lease: taken from the database.
        open: reserved by calls under way.
        unwritten: spent by calls whose rows are not written yet.
        left: beyond the lease, when the database was last asked; of_month: whether the month's budget is used up.
    """

    left: Decimal
    lease: Decimal = _ZERO
    open: Decimal = _ZERO
    unwritten: Decimal = _ZERO
    used_at: float = 0.0
    renewed_at: float = float("-inf")
    refused_at: float = float("-inf")
    of_month: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def held(self) -> Decimal:
        return self.open + self.unwritten

    @property
    def free(self) -> Decimal:
        return self.lease - self.held


class Reservation:
    """Money set aside for one call; settle it once."""

    __slots__ = ("_purse", "usd")

    def __init__(self, purse: _Purse, usd: Decimal) -> None:
        self._purse: _Purse | None = purse
        self.usd = usd

    def settle(self, cost_usd: Decimal) -> None:
        """Put what the call cost in its place; harmless when repeated."""
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.open -= self.usd
            purse.unwritten += cost_usd


class Budgets:
    """Every budgeted key's purse.

    Args:
        database: shared with all workers and hosts.
        clock: seconds, monotonic.
        wall: seconds since 1970.
        tell: told, for ``day`` and ``month``, the highest share of a key's budget that is spent.

    Attributes:
        leases: how many were taken: how often a call waited for the database.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        tell: Callable[[str, float], None] = lambda _period, _share: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self.leases = 0
        self._holder = uuid.uuid4().hex
        self._purses: dict[str, _Purse] = {}
        self._loaded: BudgetStore | None = None
        self._away = False
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._noted: deque[Spend] = deque(maxlen=_MOST_NOTED)

    @property
    def _store(self) -> BudgetStore:
        from app.ledger.budget_store import BudgetStore

        if self._loaded is None:
            self._loaded = BudgetStore(self._database, self._holder, self._wall)
        return self._loaded

    async def reserve(self, key: KeyTerms, usd: Decimal) -> Reservation:
        """Set money aside for a call that will cost about so much.

        Raises:
            BudgetSpentError: 429, nothing is left of a budget.
        """
        purse = self._purses.get(key.id)
        if purse is None:
            purse = self._purses[key.id] = _Purse(_smallest(key) / _UNKNOWN_SHARE)
        purse.used_at = self._clock()
        if purse.free < usd and self._clock() - purse.refused_at < _REFUSED_S:
            raise self._spent(key, purse)
        if purse.free < usd or purse.lock.locked():
            async with purse.lock:
                if purse.free < usd:
                    await self._take(key, purse, usd)
                purse.open += usd
        else:
            purse.open += usd
        return Reservation(purse, usd)

    async def _take(self, key: KeyTerms, purse: _Purse, need: Decimal) -> None:
        """Have the lease cover a call."""
        if self._clock() - purse.refused_at < _REFUSED_S:
            raise self._spent(key, purse)
        grant = await self._asked(key, purse, need)
        if grant is None:  # the database is away: go by what it said last
            if purse.left <= 0:
                raise self._spent(key, purse)
            purse.left -= need - purse.free
            purse.lease += need - purse.free
            return
        purse.left, purse.of_month = grant.left_usd - grant.usd, grant.of_month
        purse.lease = purse.held + grant.usd
        self.leases += 1
        purse.renewed_at = self._clock()
        if not grant.usd:
            purse.refused_at = self._clock()
            raise self._spent(key, purse)

    async def _asked(self, key: KeyTerms, purse: _Purse, need: Decimal) -> Grant | None:
        """Ask the database for a lease; None where it is away, which is found out but once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S[self._database.sqlite]
        while not (self._away and self._database.trouble is not None):
            try:
                grant = await self._store.take(key, purse.held, need)
            except DatabaseUnavailableError:
                if loop.time() >= until:
                    self._away = True
                    return None
                await asyncio.sleep(_AGAIN_S)
            else:
                self._away = False
                return grant
        return None

    def _spent(self, key: KeyTerms, purse: _Purse) -> BudgetSpentError:
        """Tell which budget is used up, and when there will be money again."""
        now = self._wall()
        monthly = purse.of_month or key.day_usd is None
        resets, limit, span = (
            (next_month(now), key.month_usd, "month") if monthly else (next_day(now), key.day_usd, "day")
        )
        error = BudgetSpentError(
            f"You exceeded your current quota: the key {key.name!r} may spend {limit:f} USD a {span} (UTC). "
            f"It resets at {resets.isoformat()}.",
            retry_after_s=max(1.0, resets.timestamp() - now),
        )
        error.final = True
        return error

    # -- the database --------------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Take note of what a call with a key cost, to be written soon."""
        if record.key is not None and record.cost_usd:
            self._noted.append(Spend(record.key, self._wall(), record.cost_usd))

    async def flush(self) -> None:
        """Write what was noted.

        Raises:
            DatabaseUnavailableError: the database is away; nothing is lost.
        """
        noted = tuple(self._noted)
        if not noted:
            return
        async with self._locked({each.key_id for each in noted}):  # none of it is to count twice for a lease
            async with self._database.begin() as connection:
                await self._store.count(connection, noted)
            for each in noted:
                self._noted.popleft()
                self._written(each)

    def _written(self, spend: Spend) -> None:
        purse = self._purses.get(spend.key_id)
        if purse is not None:
            purse.unwritten = max(_ZERO, purse.unwritten - spend.usd)
            purse.lease = max(_ZERO, purse.lease - spend.usd)

    @contextlib.asynccontextmanager
    async def _locked(self, key_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold purses, always in the same order."""
        async with contextlib.AsyncExitStack() as stack:
            for key_id in sorted(key_ids):
                if key_id in self._purses:
                    await stack.enter_async_context(self._purses[key_id].lock)
            yield

    def start(self) -> None:
        """From now on write what was noted, give back what is not used, and renew the rest, until ``close``."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._repeat(self.flush, _FLUSH_S)),
            loop.create_task(self._repeat(self.renew, _ROUND_S)),
            loop.create_task(self._repeat(self.look, _LOOK_S)),
        ]

    async def _repeat(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Do something again and again. Never cancelled: what is half written would be written twice."""
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), every_s)
            if self._database.trouble is not None:
                continue
            try:
                await work()
            except DatabaseUnavailableError:
                continue  # it tells its trouble itself
            except Exception:
                log.exception("budgets: a round failed")

    async def look(self) -> None:
        """Tell how far budgets are used up.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        for period, share in (await self._store.used()).items():
            self._tell(period, share)

    async def renew(self) -> None:
        """Do one round.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        due = {key_id for key_id, purse in self._purses.items() if self._is_due(purse)}
        if not due:
            return
        async with self._locked(due):
            purses = {key_id: self._purses[key_id] for key_id in due}
            leases = {key_id: self._kept(purse) for key_id, purse in purses.items()}
            await self._store.renew(leases)
            for key_id, purse in purses.items():
                purse.lease, purse.renewed_at = leases[key_id], self._clock()
        for key_id, purse in purses.items():
            if self._is_idle(purse) and not purse.held and not purse.lease:
                del self._purses[key_id]

    def _kept(self, purse: _Purse) -> Decimal:
        """Return what a purse goes on to hold."""
        return purse.held if self._is_idle(purse) else max(purse.lease, purse.held)

    def _is_idle(self, purse: _Purse) -> bool:
        return self._clock() - purse.used_at >= _ROUND_S

    def _is_due(self, purse: _Purse) -> bool:
        idle = self._is_idle(purse) and (purse.free != 0 or not purse.lease)
        return idle or self._clock() - purse.renewed_at >= _RENEW_S

    async def close(self) -> None:
        """Write what was noted, and give everything back."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        if self._database.trouble is not None:
            return
        try:
            await self.flush()
            if self._purses:
                await self._store.renew({key_id: purse.unwritten for key_id, purse in self._purses.items()})
        except DatabaseUnavailableError as error:
            log.warning("budgets: leases are not given back, and run out by themselves: %s", error)


def _smallest(key: KeyTerms) -> Decimal:
    return min(usd for usd in (key.day_usd, key.month_usd) if usd is not None)
