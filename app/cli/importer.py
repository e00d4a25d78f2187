"""``sluice import-litellm``: move over from LiteLLM."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.settings import ConfigError, load


def import_litellm(
    config: Annotated[Path, typer.Argument(help="LiteLLM's config.yaml.", exists=True, dir_okay=False)],
    output: Annotated[Path | None, typer.Option(help="Write here, which must not exist yet; default: print.")] = None,
) -> None:
    """Convert LiteLLM's config.yaml to a .env file; what cannot be taken over is noted at its top."""
    import yaml

    from app.cli.litellm import convert

    try:
        found = convert(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        typer.echo(f"{config}: {error}", err=True)
        raise typer.Exit(1) from error
    text = found.text()
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    for mistake in _mistakes(text):
        typer.echo(f"to be mended: {mistake}", err=True)


def _write(output: Path, text: str) -> None:
    """Write a new file that only its owner reads: keys may stand in it."""
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        typer.echo(f"{output} exists already; name another file, or move it away", err=True)
        raise typer.Exit(1) from error


def _mistakes(text: str) -> list[str]:
    """Return what Sluice would say of these settings."""
    with tempfile.TemporaryDirectory() as folder:
        env = Path(folder) / ".env"
        env.write_text(text, encoding="utf-8")
        try:
            load(env)
        except ConfigError as error:
            return error.mistakes
    return []
