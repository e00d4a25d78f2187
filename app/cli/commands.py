"""Every command there is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app import __version__
from app.cli import serve as serving
from app.cli.bench import bench
from app.cli.chat import chat
from app.cli.common import ENV_FILE, EnvFile, Json, settings_of
from app.cli.dashboard import dashboard
from app.cli.importer import import_litellm
from app.cli.keys import keys_cli
from app.cli.models import models_cli
from app.cli.parity import parity_cli
from app.cli.roles import roles_cli
from app.cli.savings import savings
from app.settings import Settings, shadowed
from app.status import at_start

if TYPE_CHECKING:
    from app.prompts.library import Shelf

_HELP = (
    "Sends each call to the cheapest model that does the job, behind OpenAI's interface.\n\n"
    'Begin with "sluice check" (what the settings come to), "sluice doctor" (what stands in the way) and "sluice '
    'serve". Settings are environment variables, or lines of the file .env; docs/configuration.md lists them. '
    'Every command has --help. "python -m app" is the same as "sluice".'
)
_RUN, _ASK, _LOOK, _CHANGE = "Run", "Ask a Sluice that runs", "Look without sending anything", "Change"
_MODEL = "groq/llama-3.3-70b-versatile"
cli = typer.Typer(name="sluice", help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
_MARKS = {"ok": "+", "note": "-", "problem": "!"}


@cli.command(rich_help_panel=_RUN)
def serve(env_file: EnvFile = ENV_FILE) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C)."""
    raise typer.Exit(serving.run(env_file))


@cli.command(rich_help_panel=_LOOK)
def check(env_file: EnvFile = ENV_FILE) -> None:
    """Check configuration and prompt files without starting; exit status 2 where one cannot be used."""
    settings = settings_of(env_file)
    typer.echo(at_start(settings, env_file), err=True)
    broken = _shelf(settings).broken
    for name, why in broken.items():
        typer.echo(f"{name} is out of use: {why}", err=True)
    if broken:
        raise typer.Exit(2)
    typer.echo("The configuration is good.")


@cli.command(rich_help_panel=_LOOK)
def doctor(env_file: EnvFile = ENV_FILE, *, as_json: Json = False) -> None:
    """Find out what stands in the way, each finding with its remedy; exit status 1 where there is a problem."""
    from app.doctor import examine

    settings = settings_of(env_file)
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


@cli.command(
    rich_help_panel=_RUN,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def engine(context: typer.Context) -> None:
    """Run the local engine alone, for gateways on other machines: --host, --port, --help tells the rest."""
    from app.engine.__main__ import main as run

    raise typer.Exit(run(context.args))


@cli.command(rich_help_panel=_LOOK)
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@cli.command(rich_help_panel=_LOOK, epilog='For example: sluice route "Write a Python function that reverses a list"')
def route(
    prompt: Annotated[str, typer.Argument(help="What a caller would ask.")],
    env_file: EnvFile = ENV_FILE,
    *,
    model: Annotated[str, typer.Option(help="auto, a role, backend/model-id, or a model's name.")] = "auto",
    task: Annotated[str | None, typer.Option(help="As in x-sluice-task.")] = None,
    complexity: Annotated[int | None, typer.Option(min=1, max=10, help="As in x-sluice-complexity.")] = None,
    as_json: Json = False,
) -> None:
    """Explain where a call would go, and why; nothing is sent. Exit status 1 where nobody can serve it."""
    settings = settings_of(env_file)
    import orjson

    from app.api.preview import preview
    from app.call import Ask, Hints
    from app.errors import SluiceError
    from app.explain import explain
    from app.ledger.prices import prices_of
    from app.settings import Live

    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    try:
        ask = Ask("chat", body, Hints(task=task, complexity=complexity), "command line", 0.0, "-")
        told = preview(ask, settings, _shelf(settings), asyncio.run(prices_of(Live(env_file))))
    except SluiceError as error:
        typer.echo(orjson.dumps(error.body()).decode() if as_json else f"route: {error.message}", err=not as_json)
        raise typer.Exit(1) from error
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() if as_json else explain(told))


cli.command(rich_help_panel=_RUN)(dashboard)
cli.command(rich_help_panel=_ASK)(chat)
cli.command(rich_help_panel=_ASK, epilog="For example: sluice bench --model small --calls 50 --concurrency 8")(bench)
cli.add_typer(models_cli, name="models", rich_help_panel=_ASK)
cli.command(rich_help_panel=_LOOK, epilog="For example: sluice savings --by task --days 30")(savings)
cli.add_typer(parity_cli, name="parity", rich_help_panel=_LOOK)
cli.add_typer(
    roles_cli, name="roles", rich_help_panel=_CHANGE, epilog=f"For example: sluice roles set analysis={_MODEL}"
)
cli.add_typer(
    keys_cli,
    name="keys",
    rich_help_panel=_CHANGE,
    epilog="For example: sluice keys create web-shop --budget-day 5 --rpm 60",
)
cli.command("import-litellm", rich_help_panel=_CHANGE)(import_litellm)


def _shelf(settings: Settings) -> Shelf:
    from app.prompts.library import read_shelf

    return read_shelf(settings.prompts_dir)
