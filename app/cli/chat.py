"""``sluice chat``: talk to the models, and see under each answer who gave it, how long it took and what it cost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ENV_FILE, EnvFile, Key, Url, settings_of

if TYPE_CHECKING:
    from app.cli.remote import Reply

_HELP = "/model NAME  /system TEXT  /reset  /help  /quit   (Ctrl-C stops an answer)"


def chat(
    env_file: EnvFile = ENV_FILE,
    *,
    model: Annotated[str, typer.Option(help="auto, a role, a task or backend/model-id.")] = "auto",
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Talk to a running Sluice; each answer says its tier, time and cost."""
    from app.cli.remote import address, key_of

    settings = settings_of(env_file)
    talk = _Talk(url or address(settings), key_of(settings, key), model, system)
    typer.echo(f"{talk.url}, model {model}. {_HELP}")
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while talk.goes_on:
            talk.take(input("\n> "))


class _Talk:
    """One conversation."""

    def __init__(self, url: str, key: str, model: str, system: str) -> None:
        self.url = url
        self._key = key
        self._model = model
        self._system = system
        self._messages: list[dict[str, Any]] = []
        self.goes_on = True

    def take(self, line: str) -> None:
        """Take one line of the person: an order, or what is asked."""
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        if word.startswith("/"):
            typer.echo(self._order(word, rest.strip()))
        else:
            self._ask(line)

    def _order(self, word: str, rest: str) -> str:
        """Carry out an order; return what the person is told."""
        match word:
            case "/model" if rest:
                self._model = rest
                return f"model {rest}"
            case "/system":
                self._system = rest
                return "system prompt set" if rest else "no system prompt"
            case "/reset":
                self._messages = []
                return "forgotten"
            case "/quit" | "/exit":
                self.goes_on = False
                return "bye"
        return _HELP

    def _ask(self, text: str) -> None:
        from app.cli.remote import RemoteError

        asked = [*self._messages, {"role": "user", "content": text}]
        try:
            reply = asyncio.run(self._answer(asked))
        except RemoteError as error:
            typer.echo(f"\nerror: {error}", err=True)
        except KeyboardInterrupt:
            typer.echo("\n(stopped; this turn is forgotten)")
        else:
            self._messages = [*asked, {"role": "assistant", "content": reply.text}]
            typer.secho(f"\n{footer(reply)}", dim=True)

    async def _answer(self, messages: list[dict[str, Any]]) -> Reply:
        from app.cli.remote import Reply, client, streamed

        system = [{"role": "system", "content": self._system}] if self._system else []
        reply = Reply()
        async with client(self.url, self._key) as http:
            async for text in streamed(http, {"model": self._model, "messages": system + messages}, reply):
                typer.echo(text, nl=False)
        return reply


def footer(reply: Reply) -> str:
    """Return the line under an answer: who, which tier, how long, how much."""
    told = reply.performance
    parts = [told.get("target") or reply.headers.get("x-sluice-target", "?")]
    parts += [f"role {role}"] if (role := reply.headers.get("x-sluice-role")) else []
    parts += [verdict] if (verdict := reply.headers.get("x-sluice-verdict")) else []
    first = "" if reply.first_ms is None else f"{reply.first_ms:.0f} ms to the first word, "
    parts.append(f"{first}{reply.total_ms / 1000:.1f} s")
    parts += [f"faults {', '.join(told['faults'])}"] if told.get("faults") else []
    return " · ".join([*parts, _money(told)])


def _money(told: dict[str, Any]) -> str:
    cost, saved = told.get("cost_usd"), told.get("saved_usd")
    if cost is None:
        return "cost unknown"
    return f"{cost:.6f} USD" + ("" if saved is None else f", saved {saved:.6f} USD")
