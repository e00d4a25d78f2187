"""``sluice bench``: a small load on a running Sluice, and where its time went."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import ENV_FILE, EnvFile, Json, Key, Url, settings_of

if TYPE_CHECKING:
    import httpx

    from app.cli.remote import Reply


def bench(
    prompt: Annotated[str, typer.Argument(help="What each call asks.")] = "Say hello in five words.",
    env_file: EnvFile = ENV_FILE,
    *,
    model: Annotated[str, typer.Option(help="auto, a role, a task or backend/model-id.")] = "auto",
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="How many calls.")] = 20,
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, help="How many at once.")] = 4,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make calls and print times, tokens a second, targets and cost. The calls are real: paid models are paid for."""
    import orjson

    from app.cli.remote import address, client, key_of

    settings = settings_of(env_file)
    http = client(url or address(settings), key_of(settings, key))
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    found = asyncio.run(_load(http, body, calls, concurrency))
    told = found.told()
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() if as_json else table(told))
    raise typer.Exit(1 if found.errors and not found.replies else 0)


class _Found:
    """What the calls brought."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.errors: Counter[str] = Counter()
        self.wall_s = 0.0

    def told(self) -> dict[str, Any]:
        """Return the figures; times in milliseconds."""
        firsts = sorted(each.first_ms for each in self.replies if each.first_ms is not None)
        totals = sorted(each.total_ms for each in self.replies)
        own = sorted(_own_ms(each.performance) for each in self.replies if each.performance)
        costs = [each.performance.get("cost_usd") for each in self.replies]
        tokens = sum(each.usage.get("completion_tokens", 0) for each in self.replies)
        return {
            "calls": len(self.replies),
            "errors": dict(self.errors),
            "calls_per_s": len(self.replies) / self.wall_s,
            "output_tokens_per_s": tokens / self.wall_s,
            "first_word_ms": quantiles(firsts),
            "total_ms": quantiles(totals),
            "sluice_ms": quantiles(own),
            "targets": dict(Counter(each.headers.get("x-sluice-target", "?") for each in self.replies)),
            "cost_usd": sum(each for each in costs if each is not None) if any(c is not None for c in costs) else None,
            "unpriced_calls": sum(each is None for each in costs),
        }


async def _load(http: httpx.AsyncClient, body: dict[str, Any], calls: int, concurrency: int) -> _Found:
    from app.cli.remote import RemoteError, whole

    found = _Found()
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            try:
                found.replies.append(await whole(http, body))
            except RemoteError as error:
                found.errors[str(error)] += 1

    began = time.perf_counter()
    async with http:
        await asyncio.gather(*(caller() for _ in range(min(concurrency, calls))))
    found.wall_s = time.perf_counter() - began
    return found


def _own_ms(performance: dict[str, Any]) -> float:
    """Return the milliseconds of a call that were Sluice's own."""
    return float(performance.get("promptBuildMs", 0.0)) + float(performance.get("parseMs", 0.0))


def quantiles(ordered: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 (nearest rank) of values in order; empty where there are none."""
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    last = len(ordered) - 1
    return {name: round(ordered[round(share * last)], 2) for name, share in ranks.items()} if ordered else {}


def table(told: dict[str, Any]) -> str:
    """Return the figures as lines for people."""
    lines = [f"{told['calls']} calls, {told['calls_per_s']:.1f} a second, {told['output_tokens_per_s']:.0f} tokens/s"]
    names = {"first_word_ms": "first word", "total_ms": "whole answer", "sluice_ms": "Sluice's own"}
    for key, name in names.items():
        if told[key]:
            lines.append(
                f"  {name:<14}" + "".join(f"{which} {value:>9.2f} ms   " for which, value in told[key].items())
            )
    lines += [f"  {count} by {target}" for target, count in told["targets"].items()]
    lines += [f"  {count} failed: {message}" for message, count in told["errors"].items()]
    cost = "unknown" if told["cost_usd"] is None else f"{told['cost_usd']:.6f} USD"
    unpriced = f", {told['unpriced_calls']} calls without a price" if told["unpriced_calls"] else ""
    return "\n".join([*lines, f"  cost {cost}{unpriced}"])
