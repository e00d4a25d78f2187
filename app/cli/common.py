"""What every command shares: its options, and how it loads the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app import status
from app.settings import ConfigError, Settings, load

EnvFile = Annotated[Path, typer.Option("--env-file", help="The file with the settings.")]
SubEnvFile = Annotated[Path | None, typer.Option("--env-file", help="The file with the settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Key = Annotated[str | None, typer.Option("--key", envvar="SLUICE_API_KEY", help="API key; default the first API_KEYS.")]
Url = Annotated[str | None, typer.Option("--url", help="A Sluice elsewhere, http://host:port.")]
ENV_FILE = status.ENV_FILE


def settings_of(env_file: Path) -> Settings:
    """Load the settings, or tell each mistake in a line.

    Raises:
        typer.Exit: 2, they cannot be used.
    """
    try:
        return load(env_file)
    except ConfigError as error:
        for mistake in error.mistakes:
            typer.echo(f"configuration: {mistake}", err=True)
        raise typer.Exit(2) from error
