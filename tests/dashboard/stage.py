"""A stage for browsers: the scripted upstream, a real gateway with a past, the real dashboard, and calls going through.

``scripts/screenshots`` uses it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx

from app.ledger.db import Database, address
from tests.guard.redis_server import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.engine.fakehub import Hub

ROOT = Path(__file__).resolve().parents[2]
KEY = "the-admin-key"
_LIMIT_S = 120.0
"""A machine that does much else starts slowly."""
_TARGETS = {
    "groq/llama-3.3-70b-versatile": ("medium", 5),
    "groq/llama-3.1-8b-instant": ("small", 8),
    "gemini/gemini-2.5-pro": ("large", 2),
    "openai/gpt-5.1": ("large", 1),
}
_PROMPTS = (
    "Write a python function that reverses a list",
    "hello, how are you today?",
    "Summarise: the river rose, and the gate was opened.",
    "Prove step by step that the square root of two is irrational.",
)
READY, SLOW, GATED = "mlx-community/Phi-3.5-mini-instruct-4bit", "org/stall-7b", "org/gated-13b"
MODELS = (READY, SLOW, GATED)
"""Local models: one that comes, one that comes when it is told to, one that the hub refuses."""
PAST = "c0000"
"""The newest call of the past; streamed, with two attempts and two faults."""


@dataclass
class Stage:
    """Everything that runs.

    Attributes:
        url: the dashboard's.
        api: a client of the gateway, with the admin key.
        gateway: its process, which a test may end.
        hub: a model hub with tiny models; None where local models are not installed.
    """

    url: str
    api: httpx.Client
    gateway: subprocess.Popen[bytes]
    env: Path
    hub: Hub | None
    _stop: threading.Event = field(default_factory=threading.Event)

    def load(self, pace_s: float) -> None:
        """Send a call now and then until the stage is left, plain and streamed."""
        number = 0
        with httpx.Client(base_url=str(self.api.base_url), timeout=30) as client:
            while not self._stop.wait(pace_s):
                number += 1
                message = {"role": "user", "content": _PROMPTS[number % len(_PROMPTS)]}
                body = {"model": "auto", "stream": number % 2 == 0, "messages": [message]}
                with contextlib.suppress(httpx.TransportError):  # the test may have ended the gateway
                    client.post("/v1/chat/completions", json=body)


@contextlib.contextmanager
def stage(folder: Path, *, past: int = 200, pace_s: float = 0.25) -> Iterator[Stage]:
    """Set the stage.

    Args:
        folder: for what it keeps.
        past: calls that the ledger holds from before, over the last hours.
        pace_s: seconds between the calls that go through.
    """
    data = folder / "data"
    asyncio.run(_remember(data, past))
    port, dashboard_port = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        upstream = _start(stack, folder / "upstream.log", "tests.upstream", "--port", "0", "--say-scripted")
        url = _upstream_url(folder / "upstream.log", upstream)
        env = folder / ".env"
        hub = _hub(stack, folder)
        env.write_text(_settings(url, port, dashboard_port, data, local=hub is not None))
        told = {} if hub is None else {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
        gateway = _start(stack, folder / "gateway.log", "app", "serve", "--env-file", str(env), **told)
        dashboard = _start(stack, folder / "dashboard.log", "app", "dashboard", "--env-file", str(env))
        headers = {"authorization": f"Bearer {KEY}"}
        api = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10))
        shown = f"http://127.0.0.1:{dashboard_port}"
        _answers(f"{shown}/health/live", dashboard)
        _answers(f"{api.base_url}/health/live", gateway)
        until(lambda: api.get("/admin/calls").status_code == 200)
        found = Stage(shown, api, gateway, env, hub)
        caller = threading.Thread(target=found.load, args=(pace_s,))
        caller.start()
        try:
            yield found
        finally:
            found._stop.set()
            caller.join()


def _hub(stack: contextlib.ExitStack, folder: Path) -> Hub | None:
    """Serve a tiny model under every name, where local models are installed."""
    if importlib.util.find_spec("llguidance") is None:
        return None
    from tests.engine import fakehub, tiny

    return stack.enter_context(fakehub.serving(tiny.make(folder / "tiny", tiny.QWEN)))


def _start(stack: contextlib.ExitStack, log: Path, *words: str, **env: str) -> subprocess.Popen[bytes]:
    sink: IO[bytes] = stack.enter_context(log.open("wb"))
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=sink, stderr=sink)

    def end() -> None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _settings(upstream: str, port: int, dashboard_port: int, data: Path, *, local: bool) -> str:
    keys = "".join(f"{name}_API_KEY=k\n{name}_BASE_URL={upstream}\n" for name in ("GROQ", "OPENAI", "GEMINI"))
    return (
        f"PORT={port}\nDASHBOARD_PORT={dashboard_port}\nADMIN_KEY={KEY}\nDATA_DIR={data}\nLOG_LEVEL=warning\n{keys}"
        f"MLX_ENABLED={str(local).lower()}\nMLX_MODELS={','.join(MODELS)}\nOLLAMA_ENABLED=false\nMODEL_SMALL=groq/llama-3.1-8b-instant\n"
        "MODEL_MEDIUM=groq/llama-3.3-70b-versatile\nMODEL_LARGE=gemini/gemini-2.5-pro,openai/gpt-5.1\n"
        "MODEL_CODE=groq/llama-3.3-70b-versatile\nMODEL_ANALYSIS=groq/qwen-2.5-72b\n"
    )


def until(true: Any, limit_s: float = _LIMIT_S) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def _answers(url: str, process: subprocess.Popen[bytes]) -> None:
    def live() -> bool:
        assert process.poll() is None, "it ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url).status_code == 200
        return False

    until(live)


def _upstream_url(log: Path, process: subprocess.Popen[bytes]) -> str:
    def told() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"http://\S+", log.read_text())

    until(told)
    found = told()
    assert found is not None
    return found[0]


# -- the past ----------------------------------------------------------------------------------------------------------


async def _remember(data: Path, count: int) -> None:
    """Write calls of the last hours into the ledger."""
    from app.ledger.tables.calls import attempts, calls

    url = address("", str(data))
    assert url is not None
    database = Database(url)
    await database.start()
    rnd = random.Random(1)
    now_ms = int(time.time() * 1000)
    rows = [_row(rnd, number, now_ms) for number in range(count)]
    tries = [_try(row, 0, row["target"], "answer" if row["id"] != PAST else "draft") for row in rows]
    tries.append(_try(rows[0], 1, "openai/gpt-5.1", "polish"))
    async with database.begin() as connection:
        await connection.execute(calls.insert(), rows)
        await connection.execute(attempts.insert(), tries)
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
        "task": rnd.choice([None, None, "map", "translation"]), "prompt_hash": None, "role": _TARGETS[target][0],
        "kind": "code" if first else rnd.choice(["chat", "code", "extraction", "summarise"]),
        "complexity": rnd.randint(1, 10), "target": target, "arm": None, "outcome": outcome,
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


# -- the browser -------------------------------------------------------------------------------------------------------


def chromium() -> str | None:
    """Return the path of the system's chromium; none is downloaded."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run the system's chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()
