"""The command line: ``sluice`` or ``python -m app``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import __version__
from app.settings import ConfigError, Settings, load, shadowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.roles import Change

cli = typer.Typer(name="sluice", help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
EnvFile = Annotated[Path, typer.Option("--env-file", help="The file with the settings.")]
SubEnvFile = Annotated[Path | None, typer.Option("--env-file", help="The file with the settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_ENV_FILE = Path(".env")
_MARKS = {"ok": "+", "note": "-", "problem": "!"}


def _load(env_file: Path) -> Settings:
    try:
        return load(env_file)
    except ConfigError as error:
        for mistake in error.mistakes:
            typer.echo(f"configuration: {mistake}", err=True)
        raise typer.Exit(2) from error


@cli.command()
def serve(env_file: EnvFile = _ENV_FILE) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C)."""
    settings = _load(env_file)
    _report(settings, env_file)
    os.environ["SLUICE_ENV_FILE"] = str(env_file)
    from app.serve import serve as run

    raise typer.Exit(run(settings))


@cli.command()
def check(env_file: EnvFile = _ENV_FILE) -> None:
    """Check the configuration without starting; exit status 2 where it cannot be used."""
    _report(_load(env_file), env_file)
    typer.echo("The configuration is good.")


@cli.command()
def doctor(
    env_file: EnvFile = _ENV_FILE, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Find out what stands in the way, each finding with its remedy; exit status 1 where there is a problem."""
    from app.doctor import examine

    settings = _load(env_file)
    findings = examine(settings)
    if as_json:
        import orjson

        typer.echo(orjson.dumps([each.as_json() for each in findings], option=orjson.OPT_INDENT_2).decode())
    else:
        for each in findings:
            remedy = f" -> {each.remedy}" if each.remedy else ""
            typer.echo(f"{_MARKS[each.level]} {each.about:<12} {each.told}{remedy}")
        for name in shadowed(env_file):
            typer.echo(f"- {name} is set by the environment: editing {env_file} does not change it")
    raise typer.Exit(1 if any(each.level == "problem" for each in findings) else 0)


@cli.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def engine(context: typer.Context) -> None:
    """Run the local engine alone, for gateways on other machines: --host, --port, --help tells the rest."""
    from app.engine.__main__ import main as run

    raise typer.Exit(run(context.args))


models = typer.Typer(help="The local models of a running Sluice.", no_args_is_help=True)
cli.add_typer(models, name="models")


@models.command("list")
def list_models(env_file: EnvFile = _ENV_FILE) -> None:
    """Print every local model and its state."""
    from app import models as local

    _told(lambda: local.show(_load(env_file)))


def _model_command(action: str, text: str) -> None:
    def command(
        model: Annotated[str, typer.Argument(help="A hub id or an absolute path.")], env_file: EnvFile = _ENV_FILE
    ) -> None:
        from app import models as local

        _told(lambda: typer.echo(f"{model}: {local.act(_load(env_file), action, model)}"))

    models.command(action, help=text)(command)


_model_command("pull", "Download a model.")
_model_command("load", "Load a model into memory.")
_model_command("unload", "Take a model out of memory.")


def _told(work: Callable[[], None]) -> None:
    """Run something that needs a running Sluice; say what is wrong in one line."""
    from app.models import NotServingError

    try:
        work()
    except NotServingError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@cli.command()
def route(
    prompt: Annotated[str, typer.Argument(help="What a caller would ask.")],
    env_file: EnvFile = _ENV_FILE,
    *,
    model: Annotated[str, typer.Option(help="auto, a role, backend/model-id, or a model's name.")] = "auto",
    task: Annotated[str | None, typer.Option(help="As in x-sluice-task.")] = None,
    complexity: Annotated[int | None, typer.Option(min=1, max=10, help="As in x-sluice-complexity.")] = None,
    as_json: Json = False,
) -> None:
    """Explain where a call would go, and why; nothing is sent. Exit status 1 where nobody can serve it."""
    settings = _load(env_file)
    import orjson

    from app.api.preview import preview
    from app.call import Ask, Hints
    from app.errors import SluiceError
    from app.explain import explain

    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    try:
        told = preview(Ask("chat", body, Hints(task=task, complexity=complexity), "command line", 0.0, "-"), settings)
    except SluiceError as error:
        typer.echo(orjson.dumps(error.body()).decode() if as_json else f"route: {error.message}", err=not as_json)
        raise typer.Exit(1) from error
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() if as_json else explain(told))


roles_cli = typer.Typer(help="Show roles, set them, and take that back.", invoke_without_command=True)
cli.add_typer(roles_cli, name="roles")


@roles_cli.callback()
def show_roles(context: typer.Context, env_file: EnvFile = _ENV_FILE, *, as_json: Json = False) -> None:
    """Show every role: its chain, who serves now, and the variable that sets it."""
    context.obj = env_file
    if context.invoked_subcommand is not None:
        return
    import orjson

    from app import roles

    found = list(roles.roles(_load(env_file)))
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


def _report(settings: Settings, env_file: Path) -> None:
    from app.status import table

    typer.echo(f"Sluice {__version__}\n\n{table(settings)}\n", err=True)
    for name in shadowed(env_file):
        typer.echo(f"note: the environment sets {name}: editing {env_file} does not change it", err=True)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"base_url for OpenAI clients: http://{host}:{settings.port}/v1\n", err=True)


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    sys.path.insert(0, "")
    main()
