"""The local engine under the gateway: killed, full, alternating, and engines elsewhere."""

from __future__ import annotations

import asyncio
import os
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


async def _stream(sluice: Running, model: str, text: str, **more: Any) -> tuple[str, list[Any], bool]:
    """Return the text of a stream, its other events, and whether it ended in [DONE]."""
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
                    said += choice["delta"].get("content") or ""
                    if choice["finish_reason"]:
                        errors.append(choice["finish_reason"])
    return said, errors, done


async def test_a_killed_engine_costs_no_stream(folders: dict[str, Path], start: Start) -> None:
    model = f"mlx/{folders['qwen']}"
    ask = {"max_tokens": 300, "temperature": 0, "logit_bias": {}}
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\n") as sluice:
        whole = await _stream(sluice, model, "tell me", **ask)
        assert whole[2]
        first = _pid(sluice)
        streams = [asyncio.create_task(_stream(sluice, model, f"tell me {n}", **ask)) for n in range(32)]
        await _busy(sluice, 32)
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*streams)
        print(f"32 streams ended {time.monotonic() - killed:.2f} s after the kill")
        assert [(events, done) for _, events, done in ended if not done or events not in (["stop"], ["length"])] == []
        assert (await _stream(sluice, model, "tell me", **ask)) == whole
        assert _pid(sluice) != first
        assert not alive(first)


async def _busy(sluice: Running, calls: int) -> None:
    """Wait until the engine runs that many calls."""
    async with asyncio.timeout(30):
        while True:
            models = (await sluice.client.get("/admin/models")).json()["models"]
            if sum(each.get("running", 0) for each in models.values()) >= calls:
                return
