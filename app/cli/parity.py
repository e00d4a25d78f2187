"""``sluice parity``: how tests of parity stand, and arming a role again."""

from __future__ import annotations

import asyncio
import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ENV_FILE, EnvFile, Json, SubEnvFile, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import TypeVar

    from app.ledger.db import Database
    from app.route.parity import Standing
    from app.settings import Settings

    T = TypeVar("T")

parity_cli = typer.Typer(help="Is the cheaper model as good: tests, and what follows.", invoke_without_command=True)


@parity_cli.callback()
def show_parity(context: typer.Context, env_file: EnvFile = ENV_FILE, *, as_json: Json = False) -> None:
    """Show every test: its state, the difference with its bounds, the judge's own figures."""
    context.obj = env_file
    if context.invoked_subcommand is not None:
        return
    import orjson

    from app.parity.report import as_table

    settings = settings_of(env_file)
    found = _in_database(settings, lambda database: _report(database, settings))
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else as_table(found))


@parity_cli.command("rearm")
def rearm(
    context: typer.Context,
    role: Annotated[str, typer.Argument(help="The role, e.g. analysis.")],
    env_file: SubEnvFile = None,
) -> None:
    """Put a role that was set back in use again, and begin its tests anew; every worker follows within a second."""
    path: Path = env_file or context.obj
    ended = _in_database(settings_of(path), lambda database: _rearm(database, role.strip().lower().replace("_", "-")))
    for each in ended:
        typer.echo(f"{each.trial.role}: {each.trial.target} is in use again; its test begins anew")
    if not ended:
        typer.echo(f"The role {role} has no test that breached or found nothing out.", err=True)
        raise typer.Exit(1)


async def _report(database: Database, settings: Settings) -> dict[str, Any]:
    from app.ledger import parity
    from app.parity.report import as_json

    today = datetime.now(UTC).date().isoformat()
    return as_json(
        await parity.standings(database),
        await parity.spent(database, today),
        settings.shadow_usd_per_day,
        await parity.events(database),
    )


async def _rearm(database: Database, role: str) -> list[Standing]:
    from app.ledger import parity

    return await parity.rearm(database, role, f"{getpass.getuser()} at the command line")


def _in_database(settings: Settings, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    """Do something in the ledger's database, or tell in a line why it cannot be."""
    from app.ledger.db import Database, DatabaseUnavailableError, address

    url = address(settings.database_url, settings.data_dir)
    if url is None:
        typer.echo("parity: DATABASE_URL is off: there are no tests without a database", err=True)
        raise typer.Exit(1)

    async def done() -> T:
        database = Database(url)
        try:
            await database.start()
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(done())
    except DatabaseUnavailableError as error:
        typer.echo(f"parity: the database cannot be used: {error}", err=True)
        raise typer.Exit(1) from error
