from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from app.call import Target
from app.ledger.price_file import read_price_file
from app.ledger.prices import Prices, prices_of
from app.settings import Live
from app.trace import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.upstream import Upstream

FILE = """
groq/llama-3.3-70b-versatile: {input: 1, output: 2}
up/*: {input: 0.5, output: "0.25", cached: 0.1, request: 0.001}
up/long:
  input: 1
  output: 2
  above:
    1000: {input: 10}
box/m: {hour: 3.6}
"""
USAGE = Usage(1_000_000, 1_000_000)


async def loaded(tmp_path: Path, text: str) -> Prices:
    (tmp_path / ".env").write_text(text)
    return await prices_of(Live(tmp_path / ".env"))


async def test_the_operators_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(FILE)
    prices = await loaded(tmp_path, f"PRICES_FILE={tmp_path}/prices.yaml\n")
    cost = {
        name: prices.cost_usd(Target.parse(name), USAGE, busy_s=10)
        for name in ("groq/llama-3.3-70b-versatile", "up/any", "up/long", "box/m", "groq/llama-3.1-8b-instant")
    }
    assert cost == {
        "groq/llama-3.3-70b-versatile": 3,
        "up/any": Decimal("0.751"),
        "up/long": 12,
        "box/m": Decimal("0.01"),
        "groq/llama-3.1-8b-instant": Decimal("0.13"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("groq/m: {input: -1}", "groq/m: input: -1 is not an amount"),
        ("groq/m: {input: true}", "groq/m: input: True is not an amount"),
        ("groq/m: {input: .nan}", "groq/m: input: nan is not an amount"),
        ("groq/m: {inputs: 1}", "groq/m: inputs is not one of input, output"),
        ("groq/m: 3", "groq/m: must be a map"),
        ("llama: {input: 1}", "'llama' is not a target"),
        ("groq/m: {input: 1, above: {many: {input: 2}}}", "groq/m: above: 'many' is not a number"),
        ("groq/m: {input: 1, above: 3}", "groq/m: above must be a map"),
        ("- a\n- b", "must be a map"),
        ("a: {b: [", "is not YAML"),
    ],
)
def test_a_wrong_file_says_where(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_price_file(tmp_path / "prices.yaml")


def test_an_empty_file_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("# later\n")
    assert read_price_file(tmp_path / "prices.yaml") == {}


async def test_this_machines_hours_are_shared_by_the_seconds_used(tmp_path: Path) -> None:
    prices = await loaded(tmp_path, "LOCAL_USD_PER_HOUR=0.3\nLOCAL_WATTS=200\nLOCAL_USD_PER_KWH=0.3\n")
    assert prices.cost_usd(Target.parse("ollama/m"), USAGE, busy_s=100) == Decimal("0.01")  # 0.36 an hour


async def test_the_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path, start: Start, up: Upstream) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("up/m: {input: 1, output: 1}")
    target = Target("up", "m")
    async with start(f"PRICES_FILE={file}\n", up=up) as sluice:
        prices = sluice.gateway.prices
        assert prices.cost_usd(target, USAGE) == 2
        file.write_text("up/m: {input: 5, output: 5} # more")
        async with asyncio.timeout(30):
            while True:
                if prices.cost_usd(target, USAGE) == 10:
                    break
                await asyncio.sleep(0.02)
        file.write_text("up/m: {input: many}")
        async with asyncio.timeout(30):
            while True:
                told = (await sluice.client.get("/health/ready")).json()["dependencies"]["prices"]
                if told["status"] == "degraded":
                    break
                await asyncio.sleep(0.02)
        assert "up/m: input: 'many' is not an amount" in told["why"]
        assert prices.cost_usd(target, USAGE) == 10


async def test_the_settings_change_prices_too(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("")
    live = Live(env)
    prices = await prices_of(live)
    assert prices.cost_usd(Target.parse("ollama/m"), USAGE, busy_s=3600) == 0
    env.write_text("LOCAL_USD_PER_HOUR=2\n")
    assert live.reload()
    assert prices.cost_usd(Target.parse("ollama/m"), USAGE, busy_s=3600) == 2


async def test_callers_who_name_models_without_end_fill_no_memory(tmp_path: Path) -> None:
    prices = await loaded(tmp_path, "")
    for number in range(5000):
        prices.rates(Target("ollama", f"m{number}"))
    assert len(prices._known) <= 4096


@pytest.mark.parametrize("wrong", ["BASELINE_MODEL=gpt", "LOCAL_WATTS=-1", "DATABASE_URL=mysql://u:secret-word@h/d"])
def test_wrong_settings_are_told(wrong: str, tmp_path: Path) -> None:
    from app.settings import ConfigError

    (tmp_path / ".env").write_text(f"{wrong}\n")
    with pytest.raises(ConfigError) as told:
        Live(tmp_path / ".env")
    assert wrong.partition("=")[0] in str(told.value)
    assert "secret-word" not in str(told.value)
