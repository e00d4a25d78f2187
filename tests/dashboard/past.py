"""A ledger with a past that is made up: calls of the last days, and tests of parity in every state."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from app.call import Target
from app.ledger.db import Database, address
from app.ledger.parity import _audit, _test_row
from app.ledger.tables.calls import attempts, calls
from app.ledger.tables.parity import parity_tests, shadow_days, shadow_samples
from app.route.parity import Standing, Trial
from app.route.sequential import Rules, State

if TYPE_CHECKING:
    from pathlib import Path

    from app.ledger.connection import Connection

NEWEST = "c0000"
"""The newest call of the past; streamed, with two attempts and two faults."""
SET_BACK, REFERENCE = "groq/llama-3.1-8b-instant", "openai/gpt-5.1"
"""In the role accurate this target lost, and its reference serves."""
_TARGETS = {
    "groq/llama-3.3-70b-versatile": ("medium", 5),
    "groq/llama-3.1-8b-instant": ("small", 8),
    "gemini/gemini-2.5-pro": ("large", 2),
    "openai/gpt-5.1": ("large", 1),
}
_TRIALS: tuple[tuple[str, str, str, str, State, tuple[int, int, int]], ...] = (
    ("analysis", "map", "groq/qwen-2.5-72b", "groq/llama-3.3-70b-versatile", "learning", (9, 120, 11)),
    ("fast", "", "groq/llama-3.1-8b-instant", "groq/llama-3.3-70b-versatile", "certified", (34, 1480, 30)),
    ("accurate", "", SET_BACK, REFERENCE, "breached", (3, 8, 31)),
)
"""Role, task, target, reference, state, and how many pairs the target won, tied and lost."""


def remember(data: Path, count: int) -> None:
    """Write a past into the ledger in a folder, with so many calls."""
    asyncio.run(_remember(data, count))


async def _remember(data: Path, count: int) -> None:
    url = address("", str(data))
    assert url is not None
    database = Database(url)
    await database.start()
    rnd = random.Random(1)
    now_ms = int(time.time() * 1000)
    rows = [_row(rnd, number, now_ms) for number in range(count)]
    tries = [_try(row, 0, row["target"], "answer" if row["id"] != NEWEST else "draft") for row in rows]
    tries.append(_try(rows[0], 1, "openai/gpt-5.1", "polish"))
    async with database.begin() as connection:
        await connection.execute(calls.insert(), rows)
        await connection.execute(attempts.insert(), tries)
        for trial in _TRIALS:
            await _remember_trial(connection, *trial, now_ms)
        today = time.strftime("%Y-%m-%d", time.gmtime(now_ms / 1000))
        await connection.execute(shadow_days.insert(), {"day": today, "usd": Decimal("0.314")})
    await database.close()


def _row(rnd: random.Random, number: int, now_ms: int) -> dict[str, Any]:
    first = number == 0
    target = rnd.choices(list(_TARGETS), [weight for _, weight in _TARGETS.values()])[0]
    outcome = "ok" if first or rnd.random() > 0.03 else rnd.choice(["error", "abandoned"])
    age_ms = 30_000 if first else 31_000 + int(rnd.betavariate(1.1, 2.2) * 5 * 86_400_000) // (1 if number % 4 else 100)
    token_ms, rest_ms = rnd.gauss(280, 60), rnd.expovariate(1 / 600)
    stages = {"receive": 0.2, "parse": 0.08, "classify": 0.4, "plan": 0.1, "queue": 0.05, "connect": 2.1}
    stages |= {"first_token": token_ms, "stream": rest_ms, "check": 1.1, "respond": 0.2}
    cost = Decimal(str(round(rnd.expovariate(1 / 0.0009), 8)))
    baseline = cost * Decimal(str(round(rnd.uniform(2, 9), 2)))
    return {
        "id": f"c{number:04}", "request_id": f"req_{number:024x}", "at_ms": now_ms - age_ms,
        "tenant": rnd.choice(["web-shop", "support", "anonymous"]), "endpoint": "chat",
        "stream": first or number % 2 == 0,
        "task": None if first else rnd.choice([None, None, "map", "translation"]), "prompt_hash": None,
        "role": _TARGETS[target][0],
        "kind": "code" if first else rnd.choice(["chat", "code", "extraction", "summarise"]),
        "complexity": 6 if first else rnd.randint(1, 10), "target": target, "arm": None, "outcome": outcome,
        "status": 200 if outcome == "ok" else 502, "error_type": "backend_overloaded" if outcome == "error" else None,
        "cache": None, "prompt_tokens": rnd.randint(20, 2000), "cached_tokens": 0, "cache_write_tokens": 0,
        "completion_tokens": rnd.randint(10, 800), "reasoning_tokens": 0, "estimated": False, "cost_usd": cost,
        "baseline_target": "openai/gpt-5.1", "baseline_usd": baseline, "saved_usd": baseline - cost,
        "total_ms": sum(stages.values()), "backend_ms": token_ms + rest_ms + 2.1, "first_token_ms": token_ms,
        "stages": json.dumps(stages), "faults": "no_code_block,too_short" if first else "",
        "polished": "yes" if first else None, "rescued": "", "chars": 400, "code_block": False,
        "why": "asks for code\ncode, complexity 6: the role medium" if first else None,
    }  # fmt: skip


def _try(row: dict[str, Any], number: int, target: str, purpose: str) -> dict[str, Any]:
    result = "ok" if row["outcome"] == "ok" else "overloaded"
    return {
        "call_id": row["id"], "number": number, "target": target, "purpose": purpose, "result": result, "sent": True,
        "duration_ms": row["total_ms"], "cost_usd": row["cost_usd"],
    }  # fmt: skip


async def _remember_trial(
    connection: Connection,
    role: str,
    task: str,
    target: str,
    reference: str,
    state: State,
    pairs: tuple[int, int, int],
    now_ms: int,
) -> None:
    trial = Trial(role, task, Target.parse(target), Target.parse(reference), "", Rules())
    decided, back = state != "learning", state == "breached"
    row = _test_row(trial, 0, now_ms - 3 * 86_400_000)
    row |= {"state": state, "rolled_back": back, "decided_ms": now_ms - 60_000 if decided else None}
    await connection.execute(parity_tests.insert(), row)
    differences = [each for each, number in zip((1000, 0, -1000), pairs, strict=True) for _ in range(number)]
    samples = [_sample(row, number, each, now_ms) for number, each in enumerate(differences)]
    await connection.execute(shadow_samples.insert(), samples)
    if decided:
        counts = dict(zip((1000, 0, -1000), pairs, strict=True))
        standing = Standing(row["id"], 0, trial, state, back, row["began_ms"], row["decided_ms"], counts)
        await _audit(connection, standing, state, "sluice", row["decided_ms"])


def _sample(row: dict[str, Any], number: int, difference: int, now_ms: int) -> dict[str, Any]:
    verdict = difference // 1000
    return {
        **{name: row[name] for name in ("role", "task", "target", "reference")},
        "id": uuid.uuid4().hex, "test_id": row["id"], "request_id": f"req_{number}", "at_ms": now_ms - number * 60_000,
        "difference": difference, "method": "judge", "first": verdict, "again": None,
        "second": verdict if number % 9 else -verdict,
        "prompt_tokens": 300, "completion_tokens": 200, "shadow_prompt_tokens": 300,
        "shadow_completion_tokens": 172 + number % 58,
        "shadow_usd": Decimal("0.00021"), "judge_usd": Decimal("0.00007"),
    }  # fmt: skip
