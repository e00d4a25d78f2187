"""Keeps to what was decided: roles that were set back stay so on every worker, and the metrics tell how tests stand.

A role is set back by an override in the ledger's database, not by an edit of ``.env``: see docs/decisions/0040.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from app import env_file
from app.call import Target
from app.ledger.db import DatabaseUnavailableError
from app.route.parity import Rollback, set_back
from app.telemetry.parity import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.gateway import Gateway
    from app.route.parity import Standing, Trial
    from app.route.sequential import State
    from app.settings import Settings

_FOLLOW_S = 0.5
"""How often a worker looks for decisions of others; a role is to be set back everywhere within a second."""
_IDLE_ROUNDS = 20
"""Where no role has a reference, only each so many looks."""
_READ_ROUNDS = 10
"""How many looks come between two readings of all tests, which take some milliseconds each."""
_FILE = "parity.json"
log = logging.getLogger("sluice")


class Keeper:
    """One worker's view of all tests.

    Attributes:
        standings: every armed test by its key, as last read.
        rollbacks: which roles are set back.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._path = Path(gateway.live.current.data_dir) / _FILE
        self.standings: dict[str, Standing] = {}
        self.rollbacks: frozenset[Rollback] = frozenset()

    def start(self) -> None:
        """Set back what was set back when Sluice last ran: the database is opened only after the first calls."""
        self._gateway.live.overlay = self.overlay
        self.rollbacks = kept(self._gateway.live.current.data_dir)
        self._gateway.live.lay_over()

    def overlay(self, loaded: Settings) -> Settings:
        """Return the settings with the roles that are set back."""
        return laid_over(loaded, self.rollbacks)

    async def run(self) -> None:
        """Follow what workers and hosts decide."""
        rounds = 0
        while True:
            settings = self._gateway.live.current
            if settings.parity or self.rollbacks or rounds % _IDLE_ROUNDS == 0:
                await self._follow(reads=bool(settings.parity) and rounds % _READ_ROUNDS == 0)
            rounds += 1
            await asyncio.sleep(_FOLLOW_S)

    async def _follow(self, *, reads: bool) -> None:
        database = self._gateway.database
        if database is None or database.trouble is not None:
            return  # what is known stays in force
        from app.ledger import parity

        try:
            await self.adopt(await parity.rollbacks(database))
            if reads:
                self.took(await parity.standings(database))
        except DatabaseUnavailableError as error:
            log.warning("parity: the database is not there: %s", error)

    async def adopt(self, rollbacks: frozenset[Rollback]) -> None:
        """Put in force which roles are set back."""
        if rollbacks == self.rollbacks:
            return
        for each in rollbacks - self.rollbacks:
            log.error("ALERT parity: role %s: %s is set back to %s", each.role, each.target, each.reference)
        for each in self.rollbacks - rollbacks:
            log.warning("parity: role %s: %s is in use again", each.role, each.target)
        self.rollbacks = rollbacks
        self._gateway.live.lay_over()
        await asyncio.to_thread(_write, self._path, rollbacks)

    def took(self, standings: Iterable[Standing]) -> None:
        """Take note of how tests stand."""
        before, self.standings = self.standings, {each.trial.key: each for each in standings}
        for gone in before.keys() - self.standings.keys():  # armed again: its next sample begins it anew
            self._show(before[gone].trial, "learning", {})
        for each in sorted(self.standings.values(), key=_rank):  # of tests with the same labels the worst is shown
            found = each.reading()
            bounds = {"low": found.low, "high": found.high} | ({} if found.mean is None else {"mean": found.mean})
            self._show(each.trial, each.state, bounds)

    def _show(self, trial: Trial, state: State, bounds: Mapping[str, float]) -> None:
        self._gateway.metrics.parity.stands(trial.role, trial.task, trial.target, state, bounds)


def _rank(standing: Standing) -> int:
    return STATES[standing.state]


def laid_over(loaded: Settings, rollbacks: Iterable[Rollback]) -> Settings:
    """Return settings with the roles that are set back."""
    of_role: dict[str, list[Rollback]] = {}
    for each in rollbacks:
        of_role.setdefault(each.role, []).append(each)
    chains = {role: set_back(loaded.chains.get(role, ()), those) for role, those in of_role.items()}
    changed = {role: chain for role, chain in chains.items() if chain != loaded.chains.get(role, ())}
    return loaded.with_roles(changed) if changed else loaded


def kept(data_dir: str) -> frozenset[Rollback]:
    """Return which roles are set back as a gateway of this host knew it last; it begins with these."""
    path = Path(data_dir) / _FILE
    try:
        rows = orjson.loads(path.read_bytes())
        return frozenset(
            Rollback(row["role"], Target.parse(row["target"]), Target.parse(row["reference"])) for row in rows
        )
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("parity: %s cannot be read, the database tells soon which roles are set back: %s", path, error)
        return frozenset()


def _write(path: Path, rollbacks: frozenset[Rollback]) -> None:
    rows: list[dict[str, Any]] = [
        {"role": each.role, "target": str(each.target), "reference": str(each.reference)}
        for each in sorted(rollbacks, key=str)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        env_file.write(path, orjson.dumps(rows).decode())
    except OSError as error:
        log.warning("parity: %s cannot be written: %s", path, error)
