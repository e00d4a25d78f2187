"""The bundled price list, genai-prices, without the 20 MB that it takes in memory.

A process of its own reads the package and writes what matters into a file, once per version; from there a target's
rates are looked up in milliseconds, and kept by whoever asked. Nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from datetime import date, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from app.route.price import Rates, Season, Step

_ROOT = Path(__file__).parents[2]
_WRITE_S = 60.0
_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "request_usd": "requests_kcount",
}
_DATED = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
"""OpenRouter writes ``gpt-5.2-20251211`` where the list has ``gpt-5.2-2025-12-11``."""


class PriceList:
    """The list in its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._providers: dict[str, dict[str, Any]] = orjson.loads(file.readline())
            self._start = file.tell()
        self._patterns = [(re.compile(each["pattern"]), name) for name, each in self._providers.items()]

    def provider_at(self, url: str) -> str | None:
        """Return the provider whose API has this address."""
        return next((name for pattern, name in self._patterns if pattern.match(url)), None)

    def find(self, provider: str, model: str) -> tuple[Season, ...] | None:
        """Return a model's rates; None where the list does not know it."""
        model = model.lower()
        dated = _DATED.sub(r"-\1-\2-\3", model)
        for name in dict.fromkeys((model, dated)):
            for place in (provider, *self._providers[provider]["fallback"]):
                for clause, seasons in self._models(place):
                    if _matches(clause, name):
                        return tuple(_season(each) for each in seasons)
        return None

    def _models(self, provider: str) -> list[Any]:
        about = self._providers[provider]
        with self._path.open("rb") as file:
            file.seek(self._start + about["offset"])
            models: list[Any] = orjson.loads(file.read(about["length"]))
        return models


def price_path(folder: Path) -> Path:
    """Return the list's file in a folder."""
    return folder / f"prices-{_version()}.json"


@cache
def _version() -> str:
    """Return the package's version; it is looked up in all of the package's metadata."""
    return version("genai-prices")


async def price_list(folder: Path) -> PriceList:
    """Return the list that is kept in a folder, written anew where the package's version is another.

    Raises:
        OSError: it cannot be written.
    """
    path = price_path(folder)
    if not path.exists():
        await _write(path)
    return await asyncio.to_thread(PriceList, path)


async def _write(path: Path) -> None:
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, str(path)), cwd=_ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_WRITE_S):
            _, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"the price list cannot be written to {path}: {told.decode(errors='replace').strip()[-300:]}")


def _matches(clause: list[Any], model: str) -> bool:
    match clause:
        case ["equals", text]:
            return bool(model == text)
        case ["contains", text]:
            return text in model
        case ["starts_with", text]:
            return model.startswith(text)
        case ["ends_with", text]:
            return model.endswith(text)
        case ["regex", text]:
            return re.search(text, model) is not None
        case ["or", *clauses]:
            return any(_matches(each, model) for each in clauses)
        case ["and", *clauses]:
            return all(_matches(each, model) for each in clauses)
    raise ValueError(f"the price list has an unknown kind of match: {clause[0]}")


def _season(told: dict[str, Any]) -> Season:
    since = date.fromisoformat(told["since"]) if told["since"] else None
    hours = (time.fromisoformat(told["hours"][0]), time.fromisoformat(told["hours"][1])) if told["hours"] else None
    return Season(_rates(told["rates"], told["source"]), since, hours)


def _rates(told: dict[str, Any], source: str) -> Rates:
    """Build rates from ``{"input": ["0.15", [200000, "0.3"]], …}``: the base, and what holds above so many tokens."""

    def level(above: int) -> dict[str, Any]:
        return {name: _at(each, above) for name, each in told.items()}

    starts = sorted({start for _, *steps in told.values() for start, _ in steps}, reverse=True)
    steps = tuple(Step(start, Rates(**level(start), source=source)) for start in starts)
    return Rates(**level(-1), steps=steps, source=source)


def _at(told: list[Any], above: int) -> Decimal:
    base, *steps = told
    return Decimal(next((rate for start, rate in reversed(steps) if above >= start), base))


# -- in the process of its own -----------------------------------------------------------------------------------------


def write(path: Path) -> None:
    """Write the list that the installed package holds."""
    from genai_prices.data_snapshot import get_snapshot

    index: dict[str, dict[str, Any]] = {}
    body = b""
    for provider in get_snapshot().providers:
        models = orjson.dumps([found for each in provider.models if (found := _model(each))])
        index[provider.id] = {
            "pattern": provider.api_pattern,
            "fallback": provider.fallback_model_providers or [],
            "offset": len(body),
            "length": len(models),
        }
        body += models
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(orjson.dumps(index) + b"\n" + body)
    fresh.replace(path)


def _model(model: Any) -> list[Any] | None:
    """Return a model as ``[match, seasons]``; None where nothing about it is priced by tokens or requests."""
    prices = model.prices if isinstance(model.prices, list) else [None]
    seasons = [_told_season(each, model) for each in prices]
    return [_clause(model.match), seasons] if any(each["rates"] for each in seasons) else None


def _told_season(conditional: Any, model: Any) -> dict[str, Any]:
    prices = model.prices if conditional is None else conditional.prices
    constraint = None if conditional is None else conditional.constraint
    since = getattr(constraint, "start_date", None)
    start, end = getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)
    told = vars(prices)
    found = {name: _told_rate(told[key], name) for name, key in _RATES.items() if told.get(key) is not None}
    return {
        "since": since.isoformat() if since else None,
        "hours": [_utc(start), _utc(end)] if start is not None else None,
        "rates": found,
        "source": f"genai-prices {_version()}",
    }


def _told_rate(price: Any, name: str) -> list[Any]:
    per = 1000 if name == "request_usd" else 1
    if hasattr(price, "tiers"):
        return [str(price.base / per), *([each.start, str(each.price / per)] for each in price.tiers)]
    return [str(price / per)]


def _utc(at: Any) -> str:
    from datetime import UTC, datetime

    moment = datetime.combine(date(2000, 1, 1), at)
    return (moment.astimezone(UTC) if at.tzinfo else moment).time().isoformat()


def _clause(match: Any) -> list[Any]:
    for name in ("equals", "contains", "starts_with", "ends_with", "regex"):
        if hasattr(match, name):
            text = getattr(match, name)
            return [name, text if name == "regex" else text.lower()]
    for name in ("or", "and"):
        if hasattr(match, f"{name}_"):
            return [name, *(_clause(each) for each in getattr(match, f"{name}_"))]
    raise ValueError(f"unknown kind of match {match!r}")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
