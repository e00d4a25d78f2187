"""``sluice dashboard``: the operator's pages."""

from __future__ import annotations

import importlib.util

import typer

from app.cli.common import ENV_FILE, EnvFile, settings_of


def dashboard(env_file: EnvFile = ENV_FILE) -> None:
    """Serve the dashboard, in a process of its own: it asks a running Sluice, and may be stopped at any time."""
    settings = settings_of(env_file)
    if importlib.util.find_spec("nicegui") is None:
        typer.echo(
            "The dashboard needs the extra [dashboard]. SLUICE_EXTRAS=local,dashboard scripts/serve installs it; in an "
            "environment of your own: pip install '.[dashboard]' in Sluice's folder.",
            err=True,
        )
        raise typer.Exit(1)
    from app.dashboard.config import Config, refusal
    from app.dashboard.serve import serve
    from app.settings import Live

    why = refusal(settings)
    if why is not None:
        typer.echo(f"configuration: {why}", err=True)
        raise typer.Exit(2)
    live = Live(env_file)
    host = f"[{settings.dashboard_host}]" if ":" in settings.dashboard_host else settings.dashboard_host
    typer.echo(f"dashboard: http://{host}:{settings.dashboard_port} of {Config(live).gateway_url}", err=True)
    serve(live)
