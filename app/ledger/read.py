"""What the operator's pages ask of the ledger: recent calls, one call, and traffic over time. Never prompts or answers.

SQLAlchemy is imported where it is used: the gateway starts without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from app.ledger.db import Database

By = Literal["target", "role"]
_LISTS = ("faults", "rescued")
_CONTENT = frozenset({"prompt", "answer"})
_SAMPLE = 2000
"""Percentiles are those of so many newest calls: an exact figure would sort them all."""
_MOST_SERIES = 7
"""A chart shows so many by name; what is left is one more, ``other``."""
_FAILED = ("error", "cut")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are asked for.

    Attributes:
        limit: at most so many.
        before: only those older than this; what ``next`` said.
        outcome, target, tenant, role: only those, or all where None.
    """

    limit: int = 50
    before: str | None = None
    outcome: str | None = None
    target: str | None = None
    tenant: str | None = None
    role: str | None = None


async def recent(database: Database, wanted: Wanted) -> dict[str, Any]:
    """Return calls, newest first, and what ``before`` must be for the next ones: ``{"calls", "next"}``.

    Raises:
        ValueError: ``before`` is none of ours.
        DatabaseUnavailableError: the database is down.
    """
    async with database.connect() as connection:
        rows = (await connection.execute(_recent(wanted))).mappings().all()
    shown = [_call(row) for row in rows[: wanted.limit]]
    more = len(rows) > wanted.limit
    return {"calls": shown, "next": f"{shown[-1]['at_ms']}-{shown[-1]['id']}" if more and shown else None}


def _recent(wanted: Wanted) -> Select[Any]:
    from sqlalchemy import and_, or_, select

    from app.ledger.tables.calls import calls

    query = select(*_shown_columns()).order_by(calls.c.at_ms.desc(), calls.c.id.desc()).limit(wanted.limit + 1)
    for name in ("outcome", "target", "tenant", "role"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(calls.c[name] == value)
    if wanted.before is not None:
        at, _, last = wanted.before.partition("-")
        at_ms = int(at)
        query = query.where(or_(calls.c.at_ms < at_ms, and_(calls.c.at_ms == at_ms, calls.c.id < last)))
    return query


async def one(database: Database, name: str) -> dict[str, Any] | None:
    """Return a call by its id or its request id, the newest where several had that, with its attempts.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    async with database.connect() as connection:
        row = (await connection.execute(_named(name))).mappings().first()
        if row is None:
            return None
        made = (await connection.execute(_tries(row["id"]))).mappings().all()
    return _call(row) | {"attempts": [_attempt(each) for each in made]}


def _named(name: str) -> Select[Any]:
    from sqlalchemy import or_, select

    from app.ledger.tables.calls import calls

    found = or_(calls.c.id == name, calls.c.request_id == name)
    return select(*_shown_columns()).where(found).order_by(calls.c.at_ms.desc(), calls.c.id.desc()).limit(1)


def _tries(call_id: str) -> Select[Any]:
    from sqlalchemy import select

    from app.ledger.tables.calls import attempts

    return select(attempts).where(attempts.c.call_id == call_id).order_by(attempts.c.number)


def _shown_columns() -> list[ColumnElement[Any]]:
    from app.ledger.tables.calls import calls

    return [column for column in calls.c if column.name not in _CONTENT]


def _call(row: Any) -> dict[str, Any]:
    told = {name: _plain(value) for name, value in row.items()}
    told["stages"] = json.loads(told["stages"])
    told["why"] = (told["why"] or "").splitlines()
    for name in _LISTS:
        told[name] = [each for each in told[name].split(",") if each]
    return told


def _attempt(row: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row.items() if name not in {"call_id", "number"}}


def _plain(value: Any) -> Any:
    """Return a value for JSON: money as a number, which holds fifteen digits."""
    from decimal import Decimal

    return float(value) if isinstance(value, Decimal) else value


async def traffic(database: Database, since_ms: int, until_ms: int, step_ms: int, by: By) -> dict[str, Any]:
    """Return the calls of a time by target or role, one figure a step, and what they were like together.

    Args:
        database: the ledger's.
        since_ms: from here on, milliseconds since 1970; a whole number of steps.
        until_ms: and before this.
        step_ms: length of a step.
        by: what the series are.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    async with database.connect() as connection:
        counted = (await connection.execute(_counts(since_ms, until_ms, step_ms, by))).all()
        sample = (await connection.execute(_times(since_ms, until_ms))).all()
    steps = range(since_ms, until_ms, step_ms)
    place = {at: index for index, at in enumerate(steps)}
    series: dict[str, list[int]] = {}
    failed = [0] * len(steps)
    total = {"calls": 0, "failed": 0, "abandoned": 0}
    for at, name, outcome, count in counted:
        series.setdefault(name or "none", [0] * len(steps))[place[at]] += count
        failed[place[at]] += count if outcome in _FAILED else 0
        total["calls"] += count
        total["failed"] += count if outcome in _FAILED else 0
        total["abandoned"] += count if outcome == "abandoned" else 0
    return {
        "step_ms": step_ms,
        "at_ms": list(steps),
        "series": [{"name": name, "calls": calls} for name, calls in _largest(series)],
        "failed": failed,
        "total": total | _percentiles(sample),
    }


def _counts(since_ms: int, until_ms: int, step_ms: int, by: By) -> Select[Any]:
    from sqlalchemy import func, literal_column, select

    from app.ledger.tables.calls import calls

    length: ColumnElement[int] = literal_column(
        str(step_ms)
    )  # as a parameter it would be two, and PostgreSQL takes them for different
    step = calls.c.at_ms - calls.c.at_ms % length
    within = calls.c.at_ms.between(since_ms, until_ms - 1)
    keys = (step, calls.c[by], calls.c.outcome)
    return select(*keys, func.count()).where(within).group_by(*keys)


def _times(since_ms: int, until_ms: int) -> Select[Any]:
    from sqlalchemy import select

    from app.ledger.tables.calls import calls

    within = calls.c.at_ms.between(since_ms, until_ms - 1)
    shown = (calls.c.total_ms, calls.c.backend_ms, calls.c.first_token_ms)
    return select(*shown).where(within, calls.c.outcome == "ok").order_by(calls.c.at_ms.desc()).limit(_SAMPLE)


def _largest(series: dict[str, list[int]]) -> list[tuple[str, list[int]]]:
    """Return the series with the most calls by name, and all others as one."""
    ranked = sorted(series.items(), key=lambda item: (-sum(item[1]), item[0]))
    shown, rest = ranked[:_MOST_SERIES], ranked[_MOST_SERIES:]
    if rest:
        shown.append(("other", [sum(at) for at in zip(*(calls for _, calls in rest), strict=True)]))
    return shown


def _percentiles(sample: Any) -> dict[str, float | None]:
    totals = sorted(row.total_ms for row in sample)
    own = sorted(row.total_ms - row.backend_ms for row in sample)
    first = sorted(row.first_token_ms for row in sample if row.first_token_ms is not None)
    return {
        "p50_ms": _at(totals, 0.5),
        "p95_ms": _at(totals, 0.95),
        "own_p50_ms": _at(own, 0.5),
        "first_token_p50_ms": _at(first, 0.5),
    }


def _at(ordered: list[float], share: float) -> float | None:
    """Return a percentile by the nearest rank."""
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) if ordered else None
