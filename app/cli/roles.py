"""``sluice roles``: show, set, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import ENV_FILE, EnvFile, Json, SubEnvFile, settings_of
from app.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.roles import Change

roles_cli = typer.Typer(help="Show roles, set them, and take that back.", invoke_without_command=True)


@roles_cli.callback()
def show_roles(context: typer.Context, env_file: EnvFile = ENV_FILE, *, as_json: Json = False) -> None:
    """Show every role: its chain, who serves now, the variable that sets it, and whether parity has set it back."""
    context.obj = env_file
    if context.invoked_subcommand is not None:
        return
    import orjson

    from app import roles
    from app.parity.keeper import kept, laid_over

    settings = settings_of(env_file)
    found = list(roles.roles(settings, laid_over(settings, kept(settings.data_dir))))
    shown = orjson.dumps(roles.as_json(found), option=orjson.OPT_INDENT_2).decode() if as_json else None
    typer.echo(shown or roles.as_table(found))


@roles_cli.command("set")
def set_roles(
    context: typer.Context,
    assignments: Annotated[list[str], typer.Argument(help="ROLE=backend/model-id each; an empty value: the default.")],
    env_file: SubEnvFile = None,
) -> None:
    """Set roles in the .env file; a server that runs follows within a second."""
    from app import roles

    path = env_file or context.obj
    _edit(path, lambda: roles.change(path, assignments))


@roles_cli.command("undo")
def undo_roles(context: typer.Context, env_file: SubEnvFile = None) -> None:
    """Take the newest change of roles back; again and again up to the oldest."""
    from app import roles

    path = env_file or context.obj
    _edit(path, lambda: roles.undo(path))


def _edit(env_file: Path, edit: Callable[[], list[Change]]) -> None:
    """Make an edit and tell it, or why it was not made."""
    from app.roles import RolesError

    try:
        changes = edit()
    except ConfigError as error:
        for mistake in error.mistakes:
            typer.echo(f"not changed: {mistake}", err=True)
        raise typer.Exit(1) from error
    except RolesError as error:
        typer.echo(f"not changed: {error}", err=True)
        raise typer.Exit(1) from error
    for each in changes:
        typer.echo(f"{env_file}: {each.variable} {each.before or '(not set)'} -> {each.after or '(not set)'}")
    if not changes:
        typer.echo(f"{env_file} says that already.")
