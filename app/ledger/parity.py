"""Parity in the database: tests, samples, decisions, and the day's spending. Shared by all workers and hosts.

A sample, the decision that it brings about and the audit row are one transaction: whoever reads the same rows decides
the same, and each decision is made once.
"""

from __future__ import annotations

import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from app.call import Target
from app.ledger.tables.parity import parity_events, parity_tests, router_labels, shadow_days, shadow_samples
from app.route.parity import Rollback, Standing, Trial, Verdicts
from app.route.sequential import Rules, State, decide, thousandths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Row, Table

    from app.ledger.connection import Connection
    from app.ledger.db import Database
    from app.route.parity import Sample

SLUICE = "sluice"
"""Who did it, in the audit, where no person did."""
_AFTER: dict[State, frozenset[State]] = {
    "learning": frozenset({"certified", "breached", "inconclusive"}),
    "certified": frozenset({"breached"}),
    "breached": frozenset(),
    "inconclusive": frozenset(),
}
"""Which decisions may follow on a state."""


async def add(database: Database, trial: Trial, sample: Sample, *, roll_back: bool) -> Standing | None:
    """Write a sample down and decide anew; return the test where this sample changed its state.

    Args:
        database: where to.
        trial: the test; its row is made where there is none.
        sample: the pair that was scored, or could not be.
        roll_back: whether a breach sets the role back.

    Raises:
        DatabaseUnavailableError: nothing was written.
    """
    async with database.begin() as connection:
        test = await _armed(connection, trial, sample.at_ms)
        await connection.execute(shadow_samples.insert().values(_sample_row(test.id, trial, sample)))
        if sample.label is not None and sample.difference is not None:
            await connection.execute(router_labels.insert().values(_label_row(trial, sample)))
        counts = (await _counts(connection, [test.id])).get(test.id, {})
        state = decide(counts, trial.rules)
        if state not in _AFTER[test.state]:
            return None
        back = state == "breached" and roll_back
        changed = {"state": state, "rolled_back": back, "decided_ms": sample.at_ms}
        await connection.execute(update(parity_tests).where(parity_tests.c.id == test.id).values(changed))
        standing = Standing(test.id, test.round, trial, state, back, test.began_ms, sample.at_ms, counts)
        await _audit(connection, standing, state, SLUICE, sample.at_ms)
    return standing


async def rollbacks(database: Database) -> frozenset[Rollback]:
    """Return which roles are set back.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    columns = (parity_tests.c.role, parity_tests.c.target, parity_tests.c.reference)
    wanted = select(*columns).where(parity_tests.c.rolled_back, parity_tests.c.armed)
    async with database.connect() as connection:
        rows = (await connection.execute(wanted)).all()
    return frozenset(Rollback(row.role, Target.parse(row.target), Target.parse(row.reference)) for row in rows)


async def standings(database: Database) -> list[Standing]:
    """Return every test that is armed, the newest first.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    wanted = select(parity_tests).where(parity_tests.c.armed).order_by(parity_tests.c.began_ms.desc())
    async with database.connect() as connection:
        rows = (await connection.execute(wanted)).all()
        ids = [row.id for row in rows]
        counts, judged = await _counts(connection, ids), await _judged(connection, ids)
        unscored = await _unscored(connection, ids)
    return [
        _standing(row, counts.get(row.id, {}), unscored.get(row.id, 0), tuple(judged.get(row.id, ()))) for row in rows
    ]


async def events(database: Database, limit: int = 100) -> list[dict[str, Any]]:
    """Return the newest audit rows, newest first.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    wanted = select(parity_events).order_by(parity_events.c.at_ms.desc()).limit(limit)
    async with database.connect() as connection:
        return [dict(row) for row in (await connection.execute(wanted)).mappings()]


async def rearm(database: Database, role: str, who: str) -> list[Standing]:
    """End the tests of a role that breached or found nothing out; the next sample begins them anew.

    Raises:
        DatabaseUnavailableError: nothing was changed.
    """
    now_ms = int(time.time() * 1000)
    ended = (parity_tests.c.role == role, parity_tests.c.armed, parity_tests.c.state.in_(("breached", "inconclusive")))
    async with database.begin() as connection:
        rows = (await connection.execute(select(parity_tests).where(*ended).with_for_update())).all()
        found = [_standing(row, {}) for row in rows]
        await connection.execute(update(parity_tests).where(*ended).values(armed=False, rolled_back=False))
        for each in found:
            await _audit(connection, each, "rearmed", who, now_ms)
    return found


# -- the day's spending ------------------------------------------------------------------------------------------------


async def reserve(database: Database, day: str, usd: Decimal, limit_usd: Decimal) -> bool:
    """Hold money back for a shadow call; False where the day's limit does not allow it.

    Raises:
        DatabaseUnavailableError: nothing is held back.
    """
    if usd > limit_usd:
        return False
    within = (shadow_days.c.day == day, shadow_days.c.usd <= limit_usd - usd)
    async with database.begin() as connection:
        await _insert_once(connection, shadow_days, {"day": day, "usd": Decimal(0)})
        done = await connection.execute(update(shadow_days).where(*within).values(usd=shadow_days.c.usd + usd))
    return done.rowcount == 1


async def settle(database: Database, day: str, reserved: Decimal, spent: Decimal) -> None:
    """Put what was spent in the place of what was held back.

    Raises:
        DatabaseUnavailableError: what was held back stays.
    """
    async with database.begin() as connection:
        changed = update(shadow_days).where(shadow_days.c.day == day)
        await connection.execute(changed.values(usd=shadow_days.c.usd + (spent - reserved)))


async def spent(database: Database, day: str) -> Decimal:
    """Return what a day's shadows cost, with what is held back, in USD.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    async with database.connect() as connection:
        found = (await connection.execute(select(shadow_days.c.usd).where(shadow_days.c.day == day))).scalar()
    return found or Decimal(0)


# -- rows --------------------------------------------------------------------------------------------------------------


async def _armed(connection: Connection, trial: Trial, now_ms: int) -> Row[Any]:
    """Return the test's row, locked; where there is none, begin it."""
    key = trial.key
    wanted = select(parity_tests).where(parity_tests.c.key == key, parity_tests.c.armed).with_for_update()
    row = (await connection.execute(wanted)).first()
    if row is not None:
        return row
    ended = (parity_tests.c.key == key, parity_tests.c.armed.is_(False))  # another host may begin the round just now
    rounds = select(func.count()).select_from(parity_tests).where(*ended)
    number = (await connection.execute(rounds)).scalar_one()
    await _insert_once(connection, parity_tests, _test_row(trial, number, now_ms))
    return (await connection.execute(wanted)).one()


def _test_row(trial: Trial, number: int, now_ms: int) -> dict[str, Any]:
    rules = trial.rules
    return {
        "id": f"{trial.key}-{number}",
        "key": trial.key,
        "round": number,
        "role": trial.role,
        "task": trial.task,
        "target": str(trial.target),
        "reference": str(trial.reference),
        "prompt_hash": trial.prompt_hash,
        "margin": rules.margin,
        "alpha": rules.alpha,
        "reliability": rules.reliability,
        "budget": rules.budget,
        "state": "learning",
        "rolled_back": False,
        "armed": True,
        "began_ms": now_ms,
    }


def _sample_row(test_id: str, trial: Trial, sample: Sample) -> dict[str, Any]:
    usage, shadow = sample.usage, sample.shadow_usage
    return {
        "id": sample.id,
        "test_id": test_id,
        "request_id": sample.request_id,
        "at_ms": sample.at_ms,
        "role": trial.role,
        "task": trial.task,
        "target": str(trial.target),
        "reference": str(trial.reference),
        "difference": None if sample.difference is None else thousandths(sample.difference),
        "method": sample.method,
        "first": sample.verdicts.first,
        "second": sample.verdicts.second,
        "again": sample.verdicts.again,
        "prompt_tokens": usage.prompt if usage else None,
        "completion_tokens": usage.completion if usage else None,
        "shadow_prompt_tokens": shadow.prompt if shadow else None,
        "shadow_completion_tokens": shadow.completion if shadow else None,
        "shadow_usd": sample.shadow_usd,
        "judge_usd": sample.judge_usd,
    }


def _label_row(trial: Trial, sample: Sample) -> dict[str, Any]:
    label = sample.label
    if label is None or sample.difference is None:
        raise ValueError("a label needs a difference")
    return {
        "id": sample.id,
        "at_ms": sample.at_ms,
        "role": trial.role,
        "target": str(trial.target),
        "reference": str(trial.reference),
        "kind": label.kind,
        "complexity": label.complexity,
        "difference": thousandths(sample.difference),
        "layout": label.layout,
        "features": label.features,
    }


def _standing(
    row: Row[Any], counts: Mapping[int, int], unscored: int = 0, judged: tuple[tuple[Verdicts, int], ...] = ()
) -> Standing:
    rules = Rules(row.margin, row.alpha, row.reliability, row.budget)
    target, reference = Target.parse(row.target), Target.parse(row.reference)
    trial = Trial(row.role, row.task, target, reference, row.prompt_hash, rules)
    return Standing(
        id=row.id,
        round=row.round,
        trial=trial,
        state=row.state,
        rolled_back=row.rolled_back,
        began_ms=row.began_ms,
        decided_ms=row.decided_ms,
        counts=counts,
        unscored=unscored,
        judged=judged,
    )


async def _counts(connection: Connection, ids: Iterable[str]) -> dict[str, dict[int, int]]:
    columns = (shadow_samples.c.test_id, shadow_samples.c.difference)
    wanted = select(*columns, func.count()).where(
        shadow_samples.c.test_id.in_(list(ids)), shadow_samples.c.difference.is_not(None)
    )
    found: dict[str, dict[int, int]] = {}
    for test_id, difference, number in await connection.execute(wanted.group_by(*columns)):
        found.setdefault(test_id, {})[difference] = number
    return found


async def _unscored(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    wanted = select(shadow_samples.c.test_id, func.count().label("number")).where(
        shadow_samples.c.test_id.in_(list(ids)), shadow_samples.c.difference.is_(None)
    )
    rows = await connection.execute(wanted.group_by(shadow_samples.c.test_id))
    return {row.test_id: row.number for row in rows}


async def _judged(connection: Connection, ids: Iterable[str]) -> dict[str, list[tuple[Verdicts, int]]]:
    says = (shadow_samples.c.first, shadow_samples.c.second, shadow_samples.c.again)
    wanted = select(shadow_samples.c.test_id, *says, func.count()).where(
        shadow_samples.c.test_id.in_(list(ids)), shadow_samples.c.method == "judge"
    )
    found: dict[str, list[tuple[Verdicts, int]]] = {}
    for test_id, first, second, again, number in await connection.execute(
        wanted.group_by(shadow_samples.c.test_id, *says)
    ):
        found.setdefault(test_id, []).append((Verdicts(first, second, again), number))
    return found


async def _audit(connection: Connection, standing: Standing, event: str, who: str, at_ms: int) -> None:
    await connection.execute(
        parity_events.insert().values(
            id=uuid.uuid4().hex,
            at_ms=at_ms,
            role=standing.trial.role,
            test_id=standing.id,
            event=event,
            who=who[:128],
            told=told(standing, event),
        )
    )


def told(standing: Standing, event: str) -> str:
    """Say in a line what happened to a test."""
    trial, found = standing.trial, standing.reading()
    task = f", task {trial.task}" if trial.task else ""
    what = f"{trial.target} against {trial.reference}{task}: {event}"
    if found.mean is None:
        return what
    bounds = f"difference {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    back = "; the role is set back to the reference" if standing.rolled_back else ""
    return f"{what} after {found.samples} samples, {bounds}, margin {trial.rules.margin:g}{back}"


async def _insert_once(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row where none has its primary key, though another worker may do the same at this moment."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    await connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())
