"""``sluice savings``: what calls cost and what was saved, read from the ledger."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ENV_FILE, EnvFile, Json, settings_of

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("name", "calls", "unpriced_calls", "cost_usd", "baseline_usd", "saved_usd")


def savings(
    env_file: EnvFile = ENV_FILE,
    *,
    by: Annotated[str, typer.Option(help="target, tenant, task or day.")] = "target",
    days: Annotated[float | None, typer.Option(min=0.001, help="Only the last so many days.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show what calls cost, what the baseline would have cost, and what was saved; also per month and per year."""
    from app.ledger.db import DatabaseUnavailableError
    from app.ledger.savings import BYS

    if by not in BYS:
        raise typer.BadParameter(f"must be one of {', '.join(BYS)}", param_hint="--by")
    try:
        told = asyncio.run(_read(env_file, by, days))
    except DatabaseUnavailableError as error:
        typer.echo(f"savings: the ledger cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        import orjson

        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(_csv(told) if as_csv else _table(told, by))


async def _read(env_file: Path, by: Any, days: float | None) -> dict[str, Any]:
    from app.ledger.db import Database, DatabaseUnavailableError, address
    from app.ledger.prices import prices_of
    from app.ledger.savings import Asked
    from app.ledger.savings import savings as added
    from app.settings import Live

    settings = settings_of(env_file)
    url = address(settings.database_url, settings.data_dir)
    if url is None:
        raise DatabaseUnavailableError("nothing is kept: DATABASE_URL is off")
    database = Database(url)
    await database.start()
    try:
        prices = await prices_of(Live(env_file))
        return await added(database, Asked(by, days, None, settings.baseline), prices, int(time.time() * 1000))
    finally:
        await database.close()


def _csv(told: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(told["by"])
    return text.getvalue().rstrip("\n")


def _table(told: dict[str, Any], by: str) -> str:
    rows = [(each["name"] or "-", each["calls"], each) for each in told["by"]]
    if told["parity_usd"]:
        rows.append(("parity", "", _proof(told["parity_usd"])))
    rows.append(("all", told["calls"], told))
    rows += [(f"per {span}", "", told[f"per_{span}"]) for span in ("month", "year")]
    width = max(len(str(name)) for name, *_ in [(by, 0), *rows])
    lines = [f"{by:<{width}}  {'calls':>8}  {'cost':>14}  {'baseline':>14}  {'saved':>14}"]
    lines += [
        f"{name:<{width}}  {calls:>8}  {_usd(of['cost_usd'])}  {_usd(of['baseline_usd'])}  {_usd(of['saved_usd'])}"
        for name, calls, of in rows
    ]
    return "\n".join([*lines, "", *_notes(told)])


def _proof(usd: float) -> dict[str, float]:
    """Return the row of what references and judges cost: with it the rows add up to the sum."""
    return {"cost_usd": usd, "baseline_usd": 0.0, "saved_usd": -usd}


def _usd(amount: float | None) -> str:
    return f"{'no price':>14}" if amount is None else f"{amount:>10.4f} USD"


def _notes(told: dict[str, Any]) -> list[str]:
    notes = [f"Baseline: {told['baseline_model'] or 'none; set BASELINE_MODEL'}. {told['assumption']}"]
    notes.append(f"Per month and per year: at the rate of the days that are added up, {told['days']:g} (one at least).")
    if told["interval_usd"] is not None:
        low, high = told["interval_usd"]
        notes.append(f"Saved, 95 %: {low:.4f} to {high:.4f} USD.")
    if told["parity_usd"]:
        notes.append("Parity: what references and judges cost that proved the rest; it is taken off what was saved.")
    if told["unpriced_calls"]:
        notes.append(f"{told['unpriced_calls']} calls have no price and are in no sum of savings.")
    return notes
