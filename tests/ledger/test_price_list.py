"""The list in its file says what the package says, for every model there is."""

from __future__ import annotations

import random
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.ledger.price_list import PriceList, price_list, write
from app.route.price import cost_usd, rates_at
from app.trace import Usage

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
PROVIDERS = ["openai", "groq", "openrouter", "google", "anthropic", "cloudflare", "deepseek", "together", "mistral"]


class _Parsed(PriceList):
    """The list, each provider's part of it parsed once: here every model is looked up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._parsed: dict[str, list[Any]] = {}

    def _models(self, provider: str) -> list[Any]:
        if provider not in self._parsed:
            self._parsed[provider] = super()._models(provider)
        return self._parsed[provider]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> PriceList:
    path = tmp_path_factory.mktemp("prices") / "prices.json"
    write(path)
    return _Parsed(path)


def ids_of(clause: list[Any]) -> list[str]:
    if clause[0] in {"or", "and"}:
        return [each for inner in clause[1:] for each in ids_of(inner)]
    return [clause[1]] if clause[0] in {"equals", "starts_with"} else []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_reckons_as_the_package_does(provider: str, bundled: PriceList) -> None:
    from genai_prices import Usage as Told
    from genai_prices import calc_price

    rng = random.Random(provider)
    names = {name for clause, _ in bundled._models(provider) for name in ids_of(clause)}
    checked = 0
    for name in sorted(names):
        prompt, completion = rng.choice([10, 5000, 250_000]), rng.randrange(5000)
        cached, written = prompt // 3, prompt // 5
        told = Told(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached, cache_write_tokens=written)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                theirs = calc_price(told, name, provider_id=provider, genai_request_timestamp=AT)
            except (LookupError, ValueError):  # unknown, or priced by what such a usage does not tell
                continue
        seasons = bundled.find(provider, name)
        if seasons is None:
            assert theirs.total_price == 0, name
            continue
        usage = Usage(prompt, completion, cached, cache_write=written)
        assert cost_usd(rates_at(seasons, AT.timestamp()), usage) == theirs.total_price, name
        checked += 1
    assert checked >= min(len(names), 20)


def test_models_that_nobody_has_heard_of_have_no_price(bundled: PriceList) -> None:
    assert bundled.find("groq", "no-such-model") is None
    assert bundled.find("openrouter", "qwen/qwen-2.5-32b-instruct") is None


def test_a_compact_date_is_the_same_model(bundled: PriceList) -> None:
    assert bundled.find("openai", "gpt-4o-20241120") == bundled.find("openai", "gpt-4o-2024-11-20") is not None


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.together.xyz/v1", "together"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "google"),
        ("http://127.0.0.1:8000/v1", None),
    ],
)
def test_addresses_name_providers(url: str, provider: str | None, bundled: PriceList) -> None:
    assert bundled.provider_at(url) == provider


async def test_a_process_of_its_own_writes_it_once(tmp_path: Path) -> None:
    found = await price_list(tmp_path / "new")
    assert found.find("openai", "gpt-4o-mini") is not None
    (kept,) = (tmp_path / "new").iterdir()
    stamp = kept.stat().st_mtime_ns
    again = (await price_list(tmp_path / "new")).find("groq", "llama-3.3-70b-versatile")
    assert again is not None
    assert (again[0].rates.input, again[0].rates.output) == (Decimal("0.59"), Decimal("0.79"))
    assert kept.stat().st_mtime_ns == stamp


async def test_a_folder_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        await price_list(tmp_path / "file" / "prices")
