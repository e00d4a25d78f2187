"""Bodies that no client should send: never a 500, never a dead worker, memory stays bounded."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from tests.failure_play import call
from tests.processes import ONE_MODEL, Served, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.upstream import Upstream

GOOD: dict[str, Any] = {
    "model": "up/m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ],
    "models": ["up/n"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "max_tokens": 20,
    "n": 1,
    "stop": ["x"],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "logit_bias": {"1": 1},
    "metadata": {"sluice_complexity": 3, "a": "b"},
    "user": "u",
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**63 - 1, "", "text", "\0", "\u202e", "a" * 5000, [], {}, [None], [[]],
    {"": ""}, {"type": "text"}, {"type": []}, [{}], [[[[]]]], ["a", 1], {"a": {"b": {"c": []}}},
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b"{}" * 2, b'{"messages": ' + b"[" * 10_000,
    b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"model": "\\ud800", "messages": []}', b'{"model": "up/m", "messages": [{"role": "user", "content": "\\udfff"}]}',
    b'{"model": "up/m", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
    b'{"model": "up/\\u0000", "messages": [{"role": "user", "content": "x"}]}', b'{"n": 1e999}', b'{"n": NaN}',
    b'{"n": ' + b"9" * 5000 + b"}", b'{"model": "up/m", "model": 7}',
)  # fmt: skip


def mutate(dice: random.Random) -> bytes:
    """Return a chat body with something wrong in it, or nothing wrong at all."""
    if dice.random() < 0.1:
        return dice.choice(RAW)
    body = orjson.loads(orjson.dumps(GOOD))
    for _ in range(dice.randint(1, 3)):
        dice.choice(_MUTATIONS)(body, dice)
    raw = json.dumps(body).encode()
    return _broken(raw, dice) if dice.random() < 0.2 else raw


def _places(value: Any, deep: int = 6) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a document, as deep as that."""
    if not deep:
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key], deep - 1))]


def _replace(body: Any, dice: random.Random) -> None:
    container, key = dice.choice(_places(body) or [({}, "")])
    container[key] = copy.deepcopy(dice.choice(ODD))


def _remove(body: Any, dice: random.Random) -> None:
    container, key = dice.choice(_places(body) or [({"": 1}, "")])
    del container[key]


def _nest(body: Any, dice: random.Random) -> None:
    deep: Any = "x"
    for _ in range(dice.choice([10, 100, 240, 300])):
        deep = [deep] if dice.random() < 0.5 else {"a": deep}
    container, key = dice.choice(_places(body) or [({}, "")])
    container[key] = deep


def _add(body: Any, dice: random.Random) -> None:
    body[dice.choice(["x", "", "top_logprobs", "logprobs", "seed", "functions", "prompt", "input"])] = copy.deepcopy(
        dice.choice(ODD)
    )


_MUTATIONS: tuple[Callable[[Any, random.Random], None], ...] = (_replace, _replace, _remove, _nest, _add)


def _broken(raw: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(raw))
    junk = dice.choice([b"", b"\0", b'"', b"{", b"\\ud83d", b"\xff", b",", b"\\", bytes([dice.randrange(256)])])
    return raw[:at] + junk + raw[at + dice.choice([0, 1, 20]) :]


async def fuzz(gateway: Served, bodies: int, seed: int) -> Counter[str]:
    """Send the bodies; return how often each status came, or which bodies got what they must not."""
    dice = random.Random(seed)
    numbers = iter(range(bodies))
    seen: Counter[str] = Counter()

    async def caller(client: aiohttp.ClientSession) -> None:
        for _ in numbers:
            raw = mutate(dice)
            path = dice.choice(["chat/completions"] * 8 + ["route", "embeddings"])
            async with client.post(f"/v1/{path}", data=raw) as answer:
                seen[verdict(answer.status, await answer.read(), raw)] += 1

    async with aiohttp.ClientSession(str(gateway.client.base_url)) as client:  # httpx takes longer than the gateway
        await asyncio.gather(*(caller(client) for _ in range(16)))
    return seen


def verdict(status: int, told: bytes, raw: bytes) -> str:
    """Return the status of an answer that is as it should be."""
    if status == 200:
        return "200"
    shaped = orjson.loads(told).get("error", {}).keys() == {"message", "type", "param", "code"}
    if 400 <= status < 500 and shaped:
        return str(status)
    return f"WRONG {status} {told[:200]!r} for {raw[:300]!r}"


async def check(up: Upstream, env_file: Path, bodies: int, grown_mb: float) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nRETRIES=0\n{ONE_MODEL}"
    async with served(env_file, text) as gateway:
        await fuzz(gateway, 300, seed=0)
        children, before, begun = gateway.children(), gateway.rss_mb(), time.monotonic()
        seen = await fuzz(gateway, bodies, seed=1)
        grown, took_s = gateway.rss_mb() - before, time.monotonic() - begun
        print(f"\n{bodies} bodies in {took_s:.0f} s: {dict(seen)}; memory {before:.0f} MiB {grown:+.1f} MiB")  # noqa: T201
        assert [each for each in seen if each.startswith("WRONG")] == []
        assert seen.total() == bodies
        assert grown < grown_mb
        assert gateway.children() == children
        assert (await call(gateway.client, "up/well", stream=True)).outcome == "whole"


async def test_two_thousand_mutated_bodies(up: Upstream, tmp_path: Path) -> None:
    await check(up, tmp_path / ".env", 2000, grown_mb=40)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_twenty_thousand_mutated_bodies(up: Upstream, tmp_path: Path) -> None:
    await check(up, tmp_path / ".env", 20_000, grown_mb=60)
