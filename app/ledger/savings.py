"""What calls cost, what the baseline would have cost, and the difference: added up from the ledger's rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

from app.call import Target
from app.route.lengths import Ratio, length_ratio
from app.trace import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Select

    from app.ledger.connection import Connection
    from app.ledger.db import Database
    from app.ledger.prices import Prices

By = Literal["target", "tenant", "task", "day"]
BYS: tuple[str, ...] = get_args(By)
_DAY_MS = 86_400_000
_MONTH_DAYS = Decimal("30.4375")
_YEAR_DAYS = Decimal("365.25")
_MOST_PAIRS = 10_000
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls are added up.

    Attributes:
        by: what they are grouped by.
        days: those of so many days up to now; None: all.
        tenant: one tenant's alone; None: everybody's.
        baseline: who is named as the baseline now; each call keeps the one that it was compared with.
    """

    by: By = "target"
    days: float | None = None
    tenant: str | None = None
    baseline: Target | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """One group of calls; money is None where no call of it has a price."""

    name: str | None
    calls: int
    unpriced: int
    cost: Decimal | None
    baseline: Decimal | None
    saved: Decimal | None

    def less(self, proof: Decimal) -> Sums:
        """Return it with the cost of what no caller asked for: references and judges that proved the rest."""
        cost = self.cost if self.cost is None and not proof else (self.cost or _ZERO) + proof
        return replace(self, cost=cost, saved=None if self.saved is None else self.saved - proof)

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"calls": self.calls, "unpriced_calls": self.unpriced, **_money(self.cost, self.baseline, self.saved)}


async def savings(database: Database, asked: Asked, prices: Prices, now_ms: int) -> dict[str, Any]:
    """Add up the ledger.

    Args:
        database: where it is.
        asked: which calls.
        prices: of the baselines, for the interval.
        now_ms: milliseconds since 1970.

    Raises:
        DatabaseUnavailableError: the database is down.
    """
    since = None if asked.days is None else now_ms - int(asked.days * _DAY_MS)
    async with database.connect() as connection:
        groups = [_sums(row, asked.by) for row in await connection.execute(_grouped(asked, since))]
        (total,) = [_sums(row, None) for row in await connection.execute(_grouped(asked, since, total=True))]
        first_ms = (await connection.execute(_first(asked, since))).scalar_one()
        answered = [tuple(row) for row in await connection.execute(_answered(asked, since))]
        pairs = await shadow_lengths(connection)
        proof = _ZERO if asked.tenant is not None else await _proof_usd(connection, since)
    total = total.less(proof)
    days = Decimal(max(now_ms - (first_ms or now_ms), _DAY_MS)) / _DAY_MS
    interval, assumption = _interval(total, answered, pairs, prices)
    return {
        **total.told(),
        "parity_usd": float(proof),
        "interval_usd": interval,
        "assumption": assumption,
        "baseline_model": str(asked.baseline) if asked.baseline is not None else None,
        "days": round(float(days), 2),
        "per_month": _rate(total, _MONTH_DAYS / days),
        "per_year": _rate(total, _YEAR_DAYS / days),
        "by": [{"name": each.name, **each.told()} for each in groups],
    }


# -- the sums ----------------------------------------------------------------------------------------------------------


def _where(asked: Asked, since: int | None) -> list[ColumnElement[bool]]:
    from app.ledger.tables.calls import calls

    wanted = [] if since is None else [calls.c.at_ms >= since]
    return wanted if asked.tenant is None else [*wanted, calls.c.tenant == asked.tenant]


def _grouped(asked: Asked, since: int | None, *, total: bool = False) -> Select[Any]:
    from sqlalchemy import case, func, literal, select

    from app.ledger.tables.calls import calls

    name = calls.c.at_ms - calls.c.at_ms % _DAY_MS if asked.by == "day" else calls.c[asked.by]
    name = literal(None) if total else name
    compared = calls.c.saved_usd.is_not(None)
    chosen = select(
        name.label("name"),
        func.count().label("calls"),
        func.coalesce(func.sum(case((compared, 0), else_=1)), 0).label("unpriced"),
        func.sum(calls.c.cost_usd).label("cost"),
        func.sum(case((compared, calls.c.baseline_usd))).label("baseline"),
        func.sum(calls.c.saved_usd).label("saved"),
    ).where(*_where(asked, since))
    if total:
        return chosen
    order = name if asked.by == "day" else func.count().desc()
    return chosen.group_by(name).order_by(order)


def _sums(row: Any, by: str | None) -> Sums:
    name = row.name
    if by == "day" and name is not None:
        name = datetime.fromtimestamp(int(name) / 1000, UTC).date().isoformat()
    return Sums(name, row.calls, int(row.unpriced), row.cost, row.baseline, row.saved)


def _first(asked: Asked, since: int | None) -> Select[Any]:
    from sqlalchemy import func, select

    from app.ledger.tables.calls import calls

    return select(func.min(calls.c.at_ms)).where(*_where(asked, since))


def _answered(asked: Asked, since: int | None) -> Select[Any]:
    """Select the tokens answered, by the baseline that they were compared with."""
    from sqlalchemy import func, select

    from app.ledger.tables.calls import calls

    chosen = select(calls.c.baseline_target, func.sum(calls.c.completion_tokens))
    compared = (calls.c.saved_usd.is_not(None), calls.c.baseline_target.is_not(None))
    return chosen.where(*compared, *_where(asked, since)).group_by(calls.c.baseline_target)


# -- the interval ------------------------------------------------------------------------------------------------------


async def shadow_lengths(connection: Connection) -> list[tuple[int, int]]:
    """Return the completion tokens of the newest served answers and of their shadows; none where there are none."""
    from sqlalchemy import inspect, text

    look: Callable[[Any], bool] = lambda plain: inspect(plain).has_table("shadow_samples")  # noqa: E731
    if not await connection.run_sync(look):
        return []
    found = await connection.execute(
        text(
            "SELECT completion_tokens, shadow_completion_tokens FROM shadow_samples "
            "WHERE completion_tokens > 0 AND shadow_completion_tokens > 0 ORDER BY at_ms DESC LIMIT :most"
        ),
        {"most": _MOST_PAIRS},
    )
    return [(int(one), int(other)) for one, other in found]


async def _proof_usd(connection: Connection, since: int | None) -> Decimal:
    """Return what shadow calls and their judges cost."""
    from sqlalchemy import func, select

    from app.ledger.tables.parity import shadow_samples

    columns = (func.sum(shadow_samples.c.shadow_usd), func.sum(shadow_samples.c.judge_usd))
    wanted = select(*columns) if since is None else select(*columns).where(shadow_samples.c.at_ms >= since)
    shadow, judge = (await connection.execute(wanted)).one()
    return (shadow or _ZERO) + (judge or _ZERO)


def _interval(
    total: Sums, answered: list[tuple[Any, ...]], pairs: list[tuple[int, int]], prices: Prices
) -> tuple[list[float] | None, str]:
    """Return the interval of what was saved, and what it and the figures rest on."""
    ratio = length_ratio(pairs)
    spent = _answers_usd(answered, prices)
    if ratio is None or total.saved is None or spent is None:
        return None, (
            "The baseline is assumed to answer with as many tokens as were served; "
            "there are too few shadow samples to say how far that is off."
        )
    return [float(total.saved + spent * (Decimal(end) - 1)) for end in (ratio.low, ratio.high)], _said(ratio)


def _said(ratio: Ratio) -> str:
    return (
        "The baseline is assumed to answer with as many tokens as were served. "
        f"The interval is what would have been saved with the lengths that {ratio.samples} shadow samples show: "
        f"{ratio.mean:.2f} times as many tokens (95 %: {ratio.low:.2f} to {ratio.high:.2f})."
    )


def _answers_usd(answered: list[tuple[Any, ...]], prices: Prices) -> Decimal | None:
    """Return what the baselines would have been paid for the answers alone; None where one has no price."""
    total = _ZERO
    for target, tokens in answered:
        cost = prices.cost_usd(Target.parse(target), Usage(0, int(tokens)))
        if cost is None:
            return None
        total += cost
    return total


# -- telling -----------------------------------------------------------------------------------------------------------


def _money(cost: Decimal | None, baseline: Decimal | None, saved: Decimal | None) -> dict[str, float | None]:
    told = {"cost_usd": cost, "baseline_usd": baseline, "saved_usd": saved}
    return {name: None if usd is None else float(usd) for name, usd in told.items()}


def _rate(total: Sums, times: Decimal) -> dict[str, float | None]:
    amounts = (total.cost, total.baseline, total.saved)
    return _money(*(None if each is None else each * times for each in amounts))
