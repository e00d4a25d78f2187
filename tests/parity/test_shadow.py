"""Shadow calls end to end: what becomes a sample, what it costs, and what follows from it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving import program
from tests.tasks.case import INPUTS, call
from tests.upstream.client import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import httpx

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

BASE = (
    "MLX_ENABLED=false\nMODEL_JUDGE=up/arbiter-judge\nPARITY__FAST__REFERENCE=up/good\nPARITY_MARGIN=0.4\n"
    "JUDGE_RELIABILITY=1\nSHADOW_SHARE=1\nSHADOW_SLOTS=8\nRETRIES=0\n"
)
TOOLS = [{"type": "function", "function": {"name": "f"}}]
EQUAL, WORSE = "MODEL_FAST=up/cheap-other\n", "MODEL_FAST=up/cheap-other-quality:2\n"


async def shown(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/admin/parity")).json().get("tests", [])
    return found


async def sampled(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    """Wait until the only test has so many samples; return it."""
    async with asyncio.timeout(30):
        while True:
            found = await shown(client)
            if found and found[0]["samples"] + found[0]["unscored"] >= number:
                (test,) = found
                return test
            await asyncio.sleep(0.02)


async def calls(client: httpx.AsyncClient, number: int, **more: Any) -> None:
    """Make calls, each with words of its own, until there are so many samples; some are dropped on a busy machine."""
    sent = 0
    while (there := await counted(client, "sluice_parity_samples_total")) < number:
        some = [ask("fast", f"Tell me about number {sent + n}.", **more) for n in range(min(8, int(number - there)))]
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=each) for each in some))
        assert all(each.status_code == 200 for each in answers)
        sent += len(some)
        async with asyncio.timeout(30):
            while True:
                if await counted(client, "sluice_parity_samples_total", "sluice_shadow_dropped_total") >= sent:
                    break
                await asyncio.sleep(0.01)


async def counted(client: httpx.AsyncClient, *names: str) -> float:
    """Return the sum of all series of some metrics."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith(tuple(f"{name}{{" for name in names))
    )


@contextlib.asynccontextmanager
async def begun(start: Start, up: Upstream, text: str) -> AsyncIterator[Running]:
    """Start a gateway and wait until its database is open: before that there are no samples."""
    async with start(text, up=up) as sluice:
        await opened(sluice.client)
        yield sluice


async def opened(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            if (await client.get("/admin/parity")).status_code == 200:
                return
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def rows(data: Path, statement: str) -> Iterator[list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(data / "sluice.db")) as file:
        yield file.execute(statement).fetchall()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_an_equal_model_is_certified(start: Start, up: Upstream, data: Path) -> None:
    async with begun(start, up, f"{BASE}{EQUAL}DATA_DIR={data}\nJUDGE_RETEST_SHARE=1\n") as sluice:
        await calls(sluice.client, 16)
        (test,) = await shown(sluice.client)
        assert (test["state"], test["samples"], test["difference"]["mean"]) == ("certified", 16, 0.0)
        judge = test["judge"]
        assert (judge["pairs"], judge["repeated"]) == (16, 16)
        assert (judge["order_agreement"], judge["retest_agreement"], judge["position_bias"]) == (1.0, 1.0, 0.0)
        metrics = (await sluice.client.get("/metrics")).text
        assert 'sluice_parity_state{role="fast",target="up/cheap-other",task="none"} 1.0' in metrics
        assert (
            'sluice_parity_samples_total{method="judge",role="fast",target="up/cheap-other",task="none"} 16' in metrics
        )
        assert 'sluice_parity_difference{bound="low",role="fast",target="up/cheap-other",task="none"} -0.' in metrics
    with rows(data, "SELECT count(*), min(length(features)) FROM router_labels") as ((labels, least),):
        assert labels == 16
        assert least > 100


async def test_a_worse_model_is_rolled_back_under_load(start: Start, up: Upstream, data: Path) -> None:
    async with begun(start, up, f"{BASE}{WORSE}DATA_DIR={data}\n") as sluice:
        targets: list[str] = []

        async def caller() -> None:
            while targets.count("up/good") < 50:
                answer = await sluice.chat(
                    "fast", f"Tell me about number {len(targets)}.", stream=len(targets) % 2 == 0
                )
                assert answer.status_code == 200
                assert "error" not in answer.text
                targets.append(answer.headers["x-sluice-target"])

        async with asyncio.timeout(60):
            await asyncio.gather(*(caller() for _ in range(4)))
        first = targets.index("up/good")
        assert "up/cheap-other-quality:2" not in targets[first + 8 :], "those under way at that moment may still end"
        (test,) = await shown(sluice.client)
        assert (test["state"], test["rolled_back"]) == ("breached", True)
        assert test["difference"]["high"] < -0.4


@pytest.mark.long
async def test_a_restart_loses_no_sample(up: Upstream, tmp_path: Path, data: Path) -> None:
    text = f"{BASE}{EQUAL}DATA_DIR={data}\nBACKENDS__UP__BASE_URL={up.url}\n"
    async with program(tmp_path / ".env", text) as first:
        await opened(first.client)
        await calls(first.client, 8)
    async with program(tmp_path / ".env", text) as second:
        await opened(second.client)
        (test,) = await shown(second.client)
        assert (test["state"], test["samples"]) == ("learning", 8)
        await calls(second.client, 8)
        (test,) = await shown(second.client)
        assert (test["state"], test["round"], test["samples"]) == ("certified", 0, 16)


async def test_a_day_costs_no_more_than_its_limit(start: Start, up: Upstream, tmp_path: Path, data: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("up/*: {input: 1, output: 10}\n")
    more = f"DATA_DIR={data}\nPRICES_FILE={prices}\nSHADOW_USD_PER_DAY=0.2\n"
    async with begun(start, up, f"{BASE}{EQUAL}{more}") as sluice:
        async with asyncio.timeout(60):
            while 'sluice_shadow_dropped_total{role="fast",why="budget"}' not in await metrics(sluice):
                await sluice.chat("fast", f"Number {len(up.log)}?", max_tokens=500)
        await settled(sluice)
    spent = "SELECT sum(shadow_usd) + sum(judge_usd), min(shadow_usd) FROM shadow_samples"
    with rows(data, spent) as ((total, least),), rows(data, "SELECT usd FROM shadow_days") as ((day,),):
        assert least > 0
        assert total == day <= 0.2 * 10**12


async def metrics(sluice: Running) -> str:
    return (await sluice.client.get("/metrics")).text


async def dropped(sluice: Running, why: str) -> None:
    """Wait until a call that was chosen became no sample."""
    async with asyncio.timeout(20):
        while True:
            if f'sluice_shadow_dropped_total{{role="fast",why="{why}"}}' in await metrics(sluice):
                return
            await asyncio.sleep(0.02)


async def settled(sluice: Running) -> None:
    """Wait until what is held back is settled: the same sum three times."""
    seen: list[float] = []
    async with asyncio.timeout(20):
        while len(seen) < 3 or len(set(seen[-3:])) > 1:
            await asyncio.sleep(0.1)
            seen.append((await sluice.client.get("/admin/parity")).json()["today"]["spent_usd"])


async def test_what_has_no_price_is_not_shadowed(start: Start, up: Upstream, data: Path) -> None:
    far = f"BACKENDS__FAR__BASE_URL=http://192.0.2.1:9/v1\n{BASE}".replace("REFERENCE=up/good", "REFERENCE=far/good")
    async with begun(start, up, f"{far}{EQUAL}DATA_DIR={data}\n") as sluice:
        async with asyncio.timeout(20):
            while 'why="unpriced"' not in await metrics(sluice):
                await sluice.chat("fast", "Once more?")
        assert await shown(sluice.client) == []


async def test_tenants_that_opted_out_are_left_alone(start: Start, up: Upstream, data: Path) -> None:
    tenant = f"key-{hashlib.sha256(b'one').hexdigest()[:8]}"
    keys = "API_KEYS=one,other\n"
    async with begun(start, up, f"{BASE}{EQUAL}{keys}DATA_DIR={data}\nSHADOW_OPT_OUT={tenant}\n") as sluice:
        await sluice.chat("fast", "From one.", headers={"authorization": "Bearer one"})
        await sluice.chat("fast", "From the other.", headers={"authorization": "Bearer other"})
        await up.wait_for(lambda log: any(each.model == "good" for each in log))
        (shadow,) = up.of("good")
        assert shadow.body["messages"][0]["content"] == "From the other."


@pytest.mark.parametrize(
    "more", [{"tools": [{"type": "function", "function": {"name": "f"}}]}, {"n": 2}, {"model": "up/cheap-other"}]
)
async def test_what_cannot_be_compared_is_no_sample(
    start: Start, up: Upstream, data: Path, more: dict[str, Any]
) -> None:
    async with begun(start, up, f"{BASE}{EQUAL}DATA_DIR={data}\n") as sluice:
        await sluice.client.post("/v1/chat/completions", json=ask("fast", "Not this one.") | more)
        await sluice.chat("fast", "This one.")
        await sampled(sluice.client, 1)
        assert [each.body["messages"][0]["content"] for each in up.of("good")] == ["This one."]


async def test_a_reference_that_fails_harms_nobody(start: Start, up: Upstream, data: Path) -> None:
    text = BASE.replace("REFERENCE=up/good", "REFERENCE=up/good-500:x1")
    async with begun(start, up, f"{text}{EQUAL}DATA_DIR={data}\n") as sluice:
        assert (await sluice.chat("fast", "One.")).status_code == 200
        await dropped(sluice, "failed")
        await sluice.chat("fast", "Two.")
        assert (await sampled(sluice.client, 1))["samples"] == 1


async def test_streams_and_json_are_samples_too(start: Start, up: Upstream, data: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["HIGH", "LOW"]}}, "required": ["label"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with begun(start, up, f"{BASE}MODEL_FAST=up/cheap-offschema\nDATA_DIR={data}\n") as sluice:
        await sluice.chat("fast", "As a stream.", stream=True, response_format=form)
        test = await sampled(sluice.client, 1)
        assert (test["difference"]["mean"], test["judge"]) == (-1.0, None)


async def test_calls_of_tasks_are_tests_of_their_own(start: Start, up: Upstream, data: Path) -> None:
    text = BASE.replace("FAST", "ANALYSIS") + f"MODEL_ANALYSIS=up/cheap-full\nDATA_DIR={data}\n"
    async with begun(start, up, text.replace("up/good", "up/good-full")) as sluice:
        answer = await call(sluice, "task/map", INPUTS["map"])
        test = await sampled(sluice.client, 1)
        assert (test["task"], test["target"], test["state"]) == ("map", "up/cheap-full", "learning")
        assert test["prompt_hash"] == answer.headers["x-sluice-prompt"].partition("@")[2]
        assert test["difference"]["mean"] == 0.0
