"""``sluice keys``: make, list, revoke and rotate callers' keys. They work on the database, with or without a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ENV_FILE, EnvFile, Json, settings_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from app.ledger.key_store import KeyStore

keys_cli = typer.Typer(help="Callers' keys: limits, budgets, and who may call at all.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(help="The key's name or id.")]
_ONCE = "The key is shown this once: keep it."
_COLUMNS = ("name", "tenant", "key", "state", "spent_day_usd", "spent_month_usd", "expires_at")


@keys_cli.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A name that no other key has.")],
    env_file: EnvFile = ENV_FILE,
    *,
    tenant: Annotated[str | None, typer.Option(help="Whom the ledger names; default the key's name.")] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="What it may ask for: auto, a role, groq/*; again for more.")
    ] = None,
    rpm: Annotated[int | None, typer.Option(help="Calls a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute.")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="Calls at once.")] = None,
    budget_day_usd: Annotated[str | None, typer.Option("--budget-day", help="USD a day (UTC).")] = None,
    budget_month_usd: Annotated[str | None, typer.Option("--budget-month", help="USD a month (UTC).")] = None,
    expires_days: Annotated[float | None, typer.Option("--expires-days", help="Days until it expires.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key. From the first one on, callers are asked for a key."""
    from app.ledger.key_terms import read_new_key, shown

    told: dict[str, Any] = {
        "name": name,
        "tenant": tenant,
        "models": tuple(models or ()),
        "rpm": rpm,
        "tpm": tpm,
        "max_parallel": max_parallel,
        "budget_day_usd": budget_day_usd,
        "budget_month_usd": budget_month_usd,
        "expires_days": expires_days,
    }

    async def work(store: KeyStore) -> dict[str, Any]:
        key, stored = await store.create(read_new_key(told))
        return shown(stored) | {"key": key}

    _tell_key(_with_store(env_file, work), as_json=as_json)


@keys_cli.command("list")
def list_keys(env_file: EnvFile = ENV_FILE, *, as_json: Json = False) -> None:
    """Print every key that was ever made, and what was spent with it; never the key itself."""
    from app.ledger.key_terms import shown

    async def work(store: KeyStore) -> list[dict[str, Any]]:
        return [shown(each) for each in await store.all()]

    found = _with_store(env_file, work)
    typer.echo(_json(found) if as_json else _table(found))


@keys_cli.command("revoke")
def revoke(name: Which, env_file: EnvFile = ENV_FILE) -> None:
    """Take a key out of use for good; servers refuse it within a second."""
    stored = _with_store(env_file, lambda store: store.revoke(name))
    typer.echo(f"{stored.terms.name}: revoked")


@keys_cli.command("rotate")
def rotate(
    name: Which,
    env_file: EnvFile = ENV_FILE,
    *,
    grace_s: Annotated[float, typer.Option(min=0, help="Seconds that the old key stays good.")] = 0,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one with the same limits, budgets and spending."""
    from app.ledger.key_terms import shown

    async def work(store: KeyStore) -> dict[str, Any]:
        key, stored = await store.rotate(name, grace_s)
        return shown(stored) | {"key": key}

    _tell_key(_with_store(env_file, work), as_json=as_json)


def _with_store(env_file: Path, work: Callable[[KeyStore], Awaitable[Any]]) -> Any:
    """Run something on the database; say what is wrong in one line.

    Raises:
        typer.Exit: 1, it did not work.
    """
    from app.errors import SluiceError
    from app.ledger.db import Database, DatabaseUnavailableError, address
    from app.ledger.key_store import KeyStore

    settings = settings_of(env_file)
    url = address(settings.database_url, settings.data_dir)

    async def run() -> Any:
        if url is None:
            raise DatabaseUnavailableError("DATABASE_URL is off")
        database = Database(url)
        try:
            await database.start()
            return await work(KeyStore(database))
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except SluiceError as error:
        typer.echo(f"keys: {error.message}", err=True)
    except DatabaseUnavailableError as error:
        typer.echo(f"keys: the database cannot be used: {error}", err=True)
    raise typer.Exit(1)


def _tell_key(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(_json(told))
        return
    typer.echo(told["key"])
    typer.echo(f"{told['name']} ({told['id']}). {_ONCE}", err=True)


def _table(keys: list[dict[str, Any]]) -> str:
    if not keys:
        return "There is no key: callers are asked for none, unless API_KEYS or KEYS_REQUIRED says so."
    rows = [_COLUMNS, *([_cell(key[name]) for name in _COLUMNS] for key in keys)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value)


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
