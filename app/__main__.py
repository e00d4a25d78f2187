"""The command line: ``sluice`` or ``python -m app``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.settings import ConfigError, Settings, load, shadowed

cli = typer.Typer(name="sluice", help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
EnvFile = Annotated[Path, typer.Option("--env-file", help="The file with the settings.")]
_ENV_FILE = Path(".env")


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
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


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
