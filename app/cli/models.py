"""``sluice models``: the local models of a running Sluice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import ENV_FILE, EnvFile, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

models_cli = typer.Typer(help="The local models of a running Sluice.", no_args_is_help=True)


@models_cli.command("list")
def list_models(env_file: EnvFile = ENV_FILE) -> None:
    """Print every local model and its state."""
    from app import models as local

    _told(lambda: local.show(settings_of(env_file)))


def _model_command(action: str, text: str) -> None:
    def command(
        model: Annotated[str, typer.Argument(help="A hub id or an absolute path.")], env_file: EnvFile = ENV_FILE
    ) -> None:
        from app import models as local

        _told(lambda: typer.echo(f"{model}: {local.act(settings_of(env_file), action, model)}"))

    models_cli.command(action, help=text)(command)


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
