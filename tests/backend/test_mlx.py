"""The local engine under the gateway: killed, full, alternating, and engines elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from app.api import respond
from tests.conftest import Running, Start
from tests.engine import tiny
from tests.engine.process import Engine
from tests.local import alive
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    made = {name: tiny.make(base / name, tiny.RECIPES[name]) for name in ("qwen", "llama", "big")}
    made["twin"] = Path(shutil.copytree(made["llama"], base / "twin"))
    made["corrupt"] = Path(shutil.copytree(made["llama"], base / "corrupt"))
    weights = made["corrupt"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return made


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
    said: list[str] = []
    ends: list[Any] = []
    async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line async for line in _seen(response.aiter_lines(), begun)]
    for line in lines:
        if line.startswith("data: {"):
            chunk = orjson.loads(line[6:])
            ends += [chunk["error"]] if "error" in chunk else []
            ends += [each["finish_reason"] for each in chunk.get("choices", ()) if each["finish_reason"]]
            said += [each["delta"].get("content") or "" for each in chunk.get("choices", ())]
    return "".join(said), ends if response.status_code == 200 else lines, "data: [DONE]" in lines


async def _seen(lines: AsyncIterator[str], begun: asyncio.Queue[None] | None) -> AsyncIterator[str]:
    """Tell when the first content comes by."""
    async for line in lines:
        if begun is not None and '"content":"' in line.replace('"content":""', ""):
            begun.put_nowait(None)
            begun = None
        yield line


async def _latencies(sluice: Running, stop: asyncio.Event) -> list[float]:
    """Call a remote backend again and again, and return how long each call took, in milliseconds, sorted."""
    found: list[float] = []
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
    ask: dict[str, Any] = {"max_tokens": 200, "temperature": 0}
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


async def _stats(sluice: Running) -> dict[str, Any]:
    backend = sluice.gateway.backends.mlx(sluice.gateway.live.current.backend_configs["mlx"])
    assert backend is not None
    (stats,) = await backend.ask_engines("/stats")
    return stats


async def test_two_models_take_turns_where_there_is_room_for_one(folders: dict[str, Path], start: Start) -> None:
    both = [f"mlx/{folders['llama']}", f"mlx/{folders['twin']}"]
    text = (
        f"MODEL_SMALL={both[0]}\nMODEL_MEDIUM={both[1]}\nMLX_MEMORY_GB=0.05\n"
        "FIRST_CONTENT_TIMEOUT_S=1.5\nRETRIES=0\n"  # far shorter than a turn of the other model
    )

    async def client(sluice: Running, number: int) -> list[Any]:
        return [
            await _stream(sluice, both[(number + turn) % 2], f"{number} {turn}", max_tokens=30, temperature=0)
            for turn in range(6)
        ]

    async with start(text) as sluice:
        began = time.monotonic()
        answers = [each for one in await asyncio.gather(*(client(sluice, n) for n in range(8))) for each in one]
        took = time.monotonic() - began
        assert [ends for _, ends, done in answers if not done or ends not in (["length"], ["stop"])] == []
        stats = await _stats(sluice)
        loads = sum(each["loads"] for each in stats["models"].values())
        print(f"48 calls to two models with room for one: {loads} loads, {took:.1f} s")
        assert loads <= 24
        assert stats["memory"]["active_bytes"] <= stats["memory"]["budget_bytes"]
        metrics = (await sluice.client.get("/metrics")).text
        assert f'sluice_engine_loads{{model="{both[0]}"}}' in metrics
        states = re.findall(r'sluice_engine_model_state{model="([^"]*)",state="ready"} (.*)', metrics)
        assert sorted(states) == sorted([(both[0], "1.0"), (both[1], "0.0")]) or len(states) == 2


async def test_unloading_gives_the_memory_back(folders: dict[str, Path], start: Start) -> None:
    model = f"mlx/{folders['big']}"
    weights = (folders["big"] / "model.safetensors").stat().st_size
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\n") as sluice:
        assert (await sluice.chat("small", max_tokens=2)).status_code == 200
        loaded = (await _stats(sluice))["memory"]["rss_bytes"]
        told = await sluice.client.post("/admin/models/unload", json={"model": model})
        assert told.json()["state"] == "not_loaded"
        left = (await _stats(sluice))["memory"]["rss_bytes"]
        print(f"engine: {loaded / 1e6:.0f} MB loaded, {left / 1e6:.0f} MB unloaded, weights {weights / 1e6:.0f} MB")
        assert loaded - left > weights * 0.8
        assert (await sluice.chat("small", max_tokens=2)).status_code == 200


async def test_a_larger_model_that_cannot_be_loaded_leaves_the_call_to_the_smaller(
    folders: dict[str, Path], start: Start
) -> None:
    small, large = f"mlx/{folders['qwen']}", f"mlx/{folders['corrupt']}"
    async with start(f"MODEL_SMALL={small}\nMODEL_MEDIUM={large},{small}\nMODEL_LARGE=groq/m\nMLX_ENABLED=true\n") as sluice:
        answer = await sluice.chat("medium", max_tokens=2)
        assert answer.headers["x-sluice-target"] == small
        assert answer.headers["x-sluice-attempts"] == f"{large}=model_missing;{small}=ok"
        said = await _stream(sluice, "medium", "hello", max_tokens=2)
        assert said[1:] == (["length"], True)
        alone = await sluice.chat(large)
        assert alone.status_code == 422
        assert alone.json()["error"]["code"] == "weights_corrupt"
        ready = (await sluice.client.get("/health/ready")).json()
        assert ready["models"][large]["state"] == "failed"
        assert "download" in ready["models"][large]["error"]["message"]
        # No cloud key: what is meant for the largest goes to the best local model, and the headers say so.
        hard = await sluice.chat("auto", "x", headers={"x-sluice-complexity": "9"}, max_tokens=2)
        assert (hard.headers["x-sluice-role"], hard.headers["x-sluice-target"]) == ("medium", small)


async def test_who_waits_for_a_model_gets_comments_and_no_timeout(
    folders: dict[str, Path], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respond, "KEEP_ALIVE_S", 0.1)
    model = f"mlx/{folders['qwen']}"
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\nFIRST_CONTENT_TIMEOUT_S=0.5\n") as sluice:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 3}
        assert (await sluice.client.get("/health/ready")).json()["models"][model]["state"] == "not_loaded"
        assert sluice.gateway.backends.engine is not None
        assert sluice.gateway.backends.engine._process is None  # asking for its health starts no engine
        async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line async for line in response.aiter_lines() if line]
        print(lines[:6])
        first = next(index for index, line in enumerate(lines) if line.startswith("data: "))
        assert first >= 3
        assert all(line.startswith(":") for line in lines[:first])
        assert lines[-1] == "data: [DONE]"
        ready = (await sluice.client.get("/health/ready")).json()
        assert (ready["status"], ready["models"][model]["state"]) == ("ready", "ready")
        assert model in [each["id"] for each in (await sluice.client.get("/v1/models")).json()["data"]]


def _calls(engine: Engine, model: Path) -> int:
    return int(engine.get("/stats")["models"].get(str(model), {}).get("decode_tokens", 0))
