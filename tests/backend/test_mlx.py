"""The local engine under the gateway: killed, full, alternating, and engines elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.conftest import Running, Start
from tests.engine import tiny
from tests.engine.process import running as engine_running
from tests.local import alive
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {name: tiny.make(base / name, tiny.RECIPES[name]) for name in ("qwen", "short", "llama")}


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def _pid(sluice: Running) -> int:
    host = sluice.gateway.backends.engine
    assert host is not None
    assert host._process is not None
    return host._process.pid


async def _stream(
    sluice: Running, model: str, text: str, begun: asyncio.Queue[None] | None = None, **more: Any
) -> tuple[str, list[Any], bool]:
    """Return the text of a stream, its errors and finish reasons, and whether it ended in [DONE]."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **more}
    said, errors, done = "", [], False
    async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return "", [response.json()], False
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunk = orjson.loads(line[6:])
                if "error" in chunk:
                    errors.append(chunk)
                for choice in chunk.get("choices", ()):
                    if begun is not None and not said and choice["delta"].get("content"):
                        begun.put_nowait(None)
                    said += choice["delta"].get("content") or ""
                    if choice["finish_reason"]:
                        errors.append(choice["finish_reason"])
    return said, errors, done


async def _latencies(sluice: Running, stop: asyncio.Event) -> list[float]:
    """Call a remote backend again and again, and return how long each call took, in milliseconds, sorted."""
    found = []
    while not stop.is_set() or len(found) < 50:
        began = time.perf_counter()
        assert (await sluice.chat("up/large", "SAY x")).status_code == 200
        found.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.005)
    return sorted(found)


async def _p99(sluice: Running, during: str, work: Any) -> Any:
    """Do some work, and print how calls to a remote backend fare meanwhile."""
    stop = asyncio.Event()
    calls = asyncio.create_task(_latencies(sluice, stop))
    result = await work
    stop.set()
    found = await calls
    print(f"remote calls {during}: p50 {found[len(found) // 2]:.1f} ms, p99 {found[len(found) * 99 // 100]:.1f} ms")
    assert found[len(found) * 99 // 100] < 2000
    return result


async def test_a_killed_engine_costs_no_stream(folders: dict[str, Path], start: Start, up: Upstream) -> None:
    model = f"mlx/{folders['qwen']}"
    ask = {"max_tokens": 200, "temperature": 0}
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\n", up=up) as sluice:
        whole = await _stream(sluice, model, "tell me", **ask)
        assert whole[2]
        await _p99(sluice, "with an idle engine", asyncio.sleep(1))
        first = _pid(sluice)
        streams = await _begun(sluice, model, **ask)
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        ended = await _p99(sluice, "while the engine is back and 32 streams go on", asyncio.gather(*streams))
        print(f"32 streams ended {time.monotonic() - killed:.2f} s after the kill")
        assert [(events, done) for _, events, done in ended if not done or events not in (["stop"], ["length"])] == []
        assert (await _stream(sluice, model, "tell me", **ask)) == whole
        assert _pid(sluice) != first
        assert not alive(first)
        assert await _rescues(sluice) >= 10  # the others had not begun, or had ended


async def test_a_fallback_saves_the_streams_of_a_killed_engine_at_once(
    folders: dict[str, Path], start: Start, up: Upstream
) -> None:
    model = f"mlx/{folders['qwen']}"
    text = f"MODEL_SMALL={model},up/large\nMLX_ENABLED=true\nBACKENDS__UP__PREFILL=true\n"
    async with start(text, up=up) as sluice:
        streams = await _begun(sluice, "small", max_tokens=3000, temperature=0)
        os.kill(_pid(sluice), signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*streams)
        took = time.monotonic() - killed
        print(f"32 streams saved by another backend {took:.2f} s after the kill")
        assert [(events, done) for _, events, done in ended if not done or events != ["stop"]] == []
        assert took < 10  # about a second on an idle machine
        assert len(up.log) == 32
        assert await _rescues(sluice) >= 20
        ready = (await sluice.client.get("/health/ready")).json()
        assert ready["status"] == "ready"


async def _rescues(sluice: Running) -> float:
    metrics = (await sluice.client.get("/metrics")).text
    found = re.search(r'^sluice_rescues_total{how="continue"} (.*)$', metrics, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


async def _begun(sluice: Running, model: str, **ask: Any) -> list[asyncio.Task[tuple[str, list[Any], bool]]]:
    """Begin 32 streams, and return them once each has its first content."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    streams = [asyncio.create_task(_stream(sluice, model, f"tell me {n}", begun, **ask)) for n in range(32)]
    for _ in streams:
        await begun.get()
    return streams
