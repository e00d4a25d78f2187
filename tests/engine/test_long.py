"""Long checks: they print their figures."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.engine.process import running
from tests.engine.test_forms import SCHEMAS, check, form

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.process import Engine

BAD_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"uniqueItems": True}}}
GENERATIONS = 500
HOSTILE = int(os.environ.get("HOSTILE_REQUESTS", "10000"))
CHAT = "/v1/chat/completions"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("clients", [1, 16])
async def test_500_generations_over_8_schemas_are_all_valid(folders: dict[str, Path], clients: int) -> None:
    """Temperature 1, limits from tight to ample, every third request in the same batch without a schema."""
    qwen = folders["qwen"]
    valid = early = 0
    with running("--models", str(qwen)) as engine:
        async with client(engine) as http:
            names = itertools.cycle(SCHEMAS)
            asks = [(next(names), 90 + seed % 4 * 70, seed) for seed in range(GENERATIONS)]
            limiter = asyncio.Semaphore(clients)

            async def one(name: str, limit: int, seed: int) -> str:
                body = {"messages": [{"role": "user", "content": name}], "seed": seed, "max_tokens": limit}
                body |= {"model": str(qwen), "temperature": 1}
                async with limiter:
                    if clients > 1 and seed % 3 == 0:
                        free = asyncio.create_task(http.post(CHAT, json=body))
                        answer = await http.post(CHAT, json=body | {"response_format": form(name)})
                        assert (await free).status_code == 200
                    else:
                        answer = await http.post(CHAT, json=body | {"response_format": form(name)})
                (choice,) = answer.json()["choices"]
                check(name, choice["message"]["content"])
                return str(choice["finish_reason"])

            began = time.monotonic()
            for reason in await asyncio.gather(*(one(*ask) for ask in asks)):
                valid += 1
                early += reason == "length"
    took = time.monotonic() - began
    print(f"\n{clients} at once: {valid}/{GENERATIONS} valid, {early} of them closed by the rule, {took:.1f} s")  # noqa: T201 - the figures are what it is run for


def client(engine: Engine) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=engine.uds, limits=httpx.Limits(max_connections=64))
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=120)


def hostile(chance: random.Random, qwen: str, eos: list[int]) -> dict[str, Any]:
    """Return one request of a kind that has broken servers of this sort."""
    body: dict[str, Any] = {"model": qwen, "messages": [{"role": "user", "content": f"h {chance.random()}"}]}
    body |= {"max_tokens": chance.randint(1, 24), "stream": chance.random() < 0.5}
    kinds: list[dict[str, Any]] = [
        {"top_k": 999_999, "temperature": 1},
        {"temperature": 2, "top_p": 1e-9, "min_p": 1},
        {"stop": ["e", "in", "tion", "\ufffd", "a" * 50]},
        {"messages": [{"role": "user", "content": "word " * 40_000}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}},
        {"response_format": form("optional"), "max_tokens": chance.randint(1, 60)},
        {"logit_bias": {str(token): -100 for token in range(800)}},
        {"logit_bias": {"999999999": 50}},
        {"temperature": "hot"},
        {"n": 5, "logprobs": True, "top_logprobs": 20},
        {"messages": []},
        {"messages": [{"role": "tool", "content": None}]},
        {"tools": [BAD_TOOL], "tool_choice": "required"},
        {"presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 10},
        {"max_tokens": 30_000, "logit_bias": {str(token): -100 for token in eos}, "leave": True},
        {"model": "org/never-heard-of"},
        {"seed": 2**64 - 1, "temperature": 1e-9},
        {"messages": [{"role": "assistant", "content": "\u0000\ud7ff go on"}]},
        {},
    ]  # fmt: skip
    return body | chance.choice(kinds)


async def send(http: httpx.AsyncClient, body: dict[str, Any], chance: random.Random) -> str:
    """Send a hostile request, leaving early where it says so or by chance, and return what became of it."""
    leave = body.pop("leave", False) or chance.random() < 0.1
    patience = chance.uniform(0.001, 0.15) if leave else 100
    try:
        async with asyncio.timeout(patience):
            response = await http.post(CHAT, json=body)
    except TimeoutError:
        return "left"
    assert response.status_code in {200, 400, 404}, response.text
    return str(response.status_code)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_10000_hostile_requests_change_nothing_for_the_others(folders: dict[str, Path]) -> None:
    """All the while a well-behaved client asks the same seeded questions and must get the same answers."""
    qwen = str(folders["qwen"])
    eos = json.loads((folders["qwen"] / "config.json").read_text())["eos_token_id"]
    chance = random.Random(4)
    outcomes: dict[str, int] = {}
    with running("--models", qwen, "--prefix-gb", "0.01") as engine:
        async with client(engine) as http:
            questions = [
                {"model": qwen, "messages": [{"role": "user", "content": f"q {i}"}], "seed": i, "max_tokens": 24}
                for i in range(8)
            ]
            wanted = [await text(http, question) for question in questions]
            bodies = iter([hostile(chance, qwen, eos) for _ in range(HOSTILE)])
            checked = 0
            sizes: list[int] = []

            async def attacker() -> None:
                for number, body in enumerate(bodies):
                    outcome = await send(http, body, chance)
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
                    if number % 20 == 0:
                        sizes.append((await http.get("/stats")).json()["memory"]["rss_bytes"])

            attackers = [asyncio.create_task(attacker()) for _ in range(16)]
            began = time.monotonic()
            while not all(task.done() for task in attackers):
                at = checked % len(questions)
                assert await text(http, questions[at]) == wanted[at]
                checked += 1
            for task in attackers:
                task.result()
            assert (await http.get("/health")).json()["status"] == "ok"
            stats = (await http.get("/stats")).json()
    took = time.monotonic() - began
    tenth = max(len(sizes) // 10, 1)
    tenths = [sum(part) / len(part) / 1e6 for part in (sizes[at : at + tenth] for at in range(0, len(sizes), tenth))]
    rebuilds = stats["models"][qwen]["rebuilds"]
    print(f"\n{HOSTILE} hostile requests in {took:.0f} s: {outcomes}; {checked} answers of the others unchanged; ")  # noqa: T201 - the figures are what it is run for
    print(f"rebuilds {rebuilds}; RSS in MB by tenths of the run: {[round(size) for size in tenths]}")  # noqa: T201 - the figures are what it is run for
    assert sum(outcomes.values()) == HOSTILE
    assert checked > HOSTILE / 100
    assert rebuilds == 0
    early, late = tenths[len(tenths) // 2], tenths[-1]  # by half-way the kept prefixes fill their budget
    assert late < 1.1 * early


async def text(http: httpx.AsyncClient, question: dict[str, Any]) -> str:
    answer = (await http.post(CHAT, json=question)).json()
    found: str = answer["choices"][0]["message"]["content"]
    return found
