"""Budgets end to end: 200 callers at once, a restart in between, streams, callers that leave, what has no price."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from app.ledger.db import Database
from app.ledger.key_store import KeyStore
from app.ledger.key_terms import NewKey
from tests.guard.redis_server import RedisServer
from tests.ledger.conftest import database_url, postgres, tables  # noqa: F401 - fixtures
from tests.processes import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    import httpx

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_COST = Decimal("0.01")
"""What a call costs: a cent a request, and nothing by the token, so that a call costs what it reserves."""
_PRICES = """
up/cent: {input: 0, output: 0, request: 0.01}
up/m-500: {input: 0, output: 0, request: 0.01}
"up/m-slow:30": {input: 0, output: 1000}
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(_PRICES)
    return path


def _text(url: str, up: Upstream, prices: Path, redis: str = "") -> str:
    named = f"BACKENDS__UP__BASE_URL={up.url}\nMODEL_LARGE=up/cent\nMODEL_EMBEDDING=up/cent\n"
    others = f"GROQ_BASE_URL={up.url}\nGROQ_API_KEY=k\nMLX_ENABLED=false\nRETRIES=0\n"
    return f"{named}{others}DATABASE_URL={url}\nPRICES_FILE={prices}\nREDIS_URL={redis}\n"


async def _ready(client: httpx.AsyncClient) -> None:
    """Wait until the database is open."""
    async with asyncio.timeout(60):
        while (await client.get("/admin/keys")).status_code != 200:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.02)


async def _make(client: httpx.AsyncClient, **limits: Any) -> dict[str, str]:
    made = await client.post("/admin/keys", json={"name": "a", **limits})
    assert made.status_code == 200, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


async def _call(client: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> httpx.Response:
    body = {"model": "up/cent", "messages": [{"role": "user", "content": "hi"}], **more}
    return await client.post("/v1/chat/completions", json=body, headers=headers)


def _served(answers: Iterable[httpx.Response]) -> int:
    """Count the calls that were answered; a stream that was refused late has told its error in an event."""
    return sum(each.status_code == 200 and b'"error"' not in each.content for each in answers)


async def _spent(client: httpx.AsyncClient) -> Decimal:
    """Return what is written; what calls cost is a moment late."""
    return Decimal(str((await client.get("/admin/keys")).json()["keys"][0]["spent_day_usd"]))


async def _settled(client: httpx.AsyncClient, usd: Decimal) -> None:
    async with asyncio.timeout(10):
        while await _spent(client) != usd:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("redis", [False, True])
async def test_two_hundred_callers_with_money_for_fifty_and_a_restart_in_between(
    up: Upstream,
    start: Start,
    database_url: str,  # noqa: F811 - a fixture
    prices: Path,
    request: pytest.FixtureRequest,
    *,
    redis: bool,
) -> None:
    url = ""
    if redis:
        server = RedisServer().start()
        request.addfinalizer(server.kill)
        url = server.url
    text = _text(database_url, up, prices, url)
    async with start(text) as gateway:
        await _ready(gateway.client)
        headers = await _make(gateway.client, budget_day_usd="0.50")
        first = await asyncio.gather(*(_call(gateway.client, headers, stream=bool(n % 2)) for n in range(30)))
        assert {each.status_code for each in first} == {200}
    async with start(text) as gateway:
        await _ready(gateway.client)
        rest = await asyncio.gather(*(_call(gateway.client, headers, stream=bool(n % 2)) for n in range(170)))
        made = _served((*first, *rest))
        assert 50 <= made <= 51
        refused = next(each for each in rest if each.status_code != 200)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
        assert "It resets at " in error["message"]
        assert int(refused.headers["retry-after"]) <= 86_400
        assert refused.headers["x-should-retry"] == "false"
        await _settled(gateway.client, made * _COST)
    assert len(up.log) == made


@pytest.mark.long
async def test_two_workers_share_a_budget(up: Upstream, tmp_path: Path, prices: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kept' / 'sluice.db'}"
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'kept' / 'sluice.db'}")
    await database.start()
    key, _ = await KeyStore(database).create(NewKey(name="a", budget_month_usd=Decimal("0.50")))
    await database.close()
    headers = {"authorization": f"Bearer {key}"}
    async with served(tmp_path / ".env", _text(url, up, prices) + "WORKERS=2\n") as gateway:
        await _ready(gateway.client)
        answers = await asyncio.gather(*(_call(gateway.client, headers) for _ in range(200)))
        made = _served(answers)
        assert 40 <= made <= 51
        async with asyncio.timeout(20):  # what one worker had leased and did not use, the other gets
            while made < 50:
                made += (await _call(gateway.client, headers)).status_code == 200
        assert made <= 51
        await _settled(gateway.client, made * _COST)
    assert len(up.log) == made


@pytest.fixture
async def kept(up: Upstream, start: Start, tmp_path: Path, prices: Path) -> AsyncIterator[Running]:
    async with start(_text(f"sqlite:///{tmp_path / 'kept' / 'sluice.db'}", up, prices)) as sluice:
        await _ready(sluice.client)
        yield sluice


@pytest.mark.parametrize("endpoint", ["chat", "stream", "responses", "embeddings", "cached"])
async def test_every_endpoint_is_held_to_it(kept: Running, endpoint: str) -> None:
    headers = await _make(kept.client, budget_day_usd="0.02")
    text = {"model": "up/cent", "input": "hi"}
    paths: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", {"model": "up/cent", "messages": [{"role": "user", "content": "hi"}]}),
        "stream": (
            "/v1/chat/completions",
            {"model": "up/cent", "messages": [{"role": "user", "content": "hi"}], "stream": True},
        ),
        "responses": ("/v1/responses", text),
        "embeddings": ("/v1/embeddings", text),
        "cached": (
            "/v1/chat/completions",
            {"model": "up/cent", "messages": [{"role": "user", "content": "hi"}], "temperature": 0},
        ),
    }
    path, body = paths[endpoint]
    no_cache = {"x-sluice-no-cache": "1"} if endpoint == "embeddings" else {}
    seen = [(await kept.client.post(path, json=body, headers=headers | no_cache)).status_code for _ in range(3)]
    assert seen == ([200, 200, 200] if endpoint == "cached" else [200, 200, 429])
    await _settled(kept.client, Decimal("0.01") if endpoint == "cached" else Decimal("0.02"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_frees_what_was_set_aside(kept: Running, up: Upstream, *, stream: bool) -> None:
    """The call may cost four times the budget: while that is set aside nothing else is let in."""
    headers = await _make(kept.client, budget_day_usd="1")
    slow = {"model": "up/m-slow:30", "stream": stream, "max_tokens": 4000}
    first = asyncio.create_task(_call(kept.client, headers, **slow))
    await up.wait_for(lambda log: len(log) == 1)
    assert (await _call(kept.client, headers)).status_code == 429
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    async with asyncio.timeout(10):
        while (await _call(kept.client, headers)).status_code != 200:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.02)
    await _settled(kept.client, _COST)


async def test_what_has_no_price_cannot_be_held_to_a_budget(kept: Running, up: Upstream) -> None:
    headers = await _make(kept.client, budget_day_usd="1")
    refused = await _call(kept.client, headers, model="groq/unheard-of")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unpriced_model")
    assert "PRICES_FILE" in refused.json()["error"]["message"]
    served_by = await _call(kept.client, headers, model="groq/unheard-of", models=["up/cent"])
    assert served_by.headers["x-sluice-target"] == "up/cent"
    assert [attempt.model for attempt in up.log] == ["cent"]


async def test_a_call_that_fails_costs_nothing(kept: Running) -> None:
    headers = await _make(kept.client, budget_day_usd="0.01")
    for stream in (False, True):
        assert (await _call(kept.client, headers, model="up/m-500", stream=stream)).status_code == 500
    assert (await _call(kept.client, headers)).status_code == 200
    assert (await _call(kept.client, headers)).status_code == 429
