"""The local engine under the gateway: killed, full, alternating, and engines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from app.api import respond
from app.backend.mlx import MlxBackend
from tests.conftest import Running, Start
from tests.engine import tiny
from tests.engine.process import Engine, environment
from tests.local import ROOT, alive, free_port, serving_child
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


def _figure(text: str) -> None:
    """Show a figure to who runs the tests with ``-s``."""
    sys.stdout.write(f"\n{text}\n")


def _pid(sluice: Running) -> int:
    host = sluice.gateway.backends.engine
    assert host is not None
    assert host._process is not None
    return serving_child(host._process.pid)


class Watch:
    """When a stream's events came, and who is to be told of its first content."""

    def __init__(self, begun: asyncio.Queue[None]) -> None:
        self._begun: asyncio.Queue[None] | None = begun
        self._times: list[float] = []

    def see(self, line: str) -> None:
        """Take a line as it comes."""
        if line.startswith("data:"):
            self._times.append(time.monotonic())
        if self._begun is not None and '"content":"' in line.replace('"content":""', ""):
            self._begun.put_nowait(None)
            self._begun = None

    def silence_s(self, since: float) -> float:
        """Return the longest time without an event that began at a moment or soon after, when all in flight had come.

        Later ones tell nothing: a random model may say what has no text for long.
        """
        times = [since, *(moment for moment in self._times if moment > since)]
        return max((after - before for before, after in itertools.pairwise(times) if before < since + 0.3), default=0.0)


async def _stream(
    sluice: Running, model: str, text: str, watch: Watch | None = None, **more: Any
) -> tuple[str, list[Any], bool]:
    """Return the text of a stream, its errors and finish reasons, and whether it ended in [DONE]."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **more}
    said: list[str] = []
    ends: list[Any] = []
    async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line async for line in _seen(response.aiter_lines(), watch)]
    for line in lines:
        if line.startswith("data: {"):
            chunk = orjson.loads(line[6:])
            ends += [chunk["error"]] if "error" in chunk else []
            ends += [each["finish_reason"] for each in chunk.get("choices", ()) if each["finish_reason"]]
            said += [each["delta"].get("content") or "" for each in chunk.get("choices", ())]
    return "".join(said), ends if response.status_code == 200 else lines, "data: [DONE]" in lines


async def _seen(lines: AsyncIterator[str], watch: Watch | None) -> AsyncIterator[str]:
    """Show a watch each line."""
    async for line in lines:
        if watch is not None:
            watch.see(line)
        yield line


async def test_a_killed_engine_costs_no_stream(folders: dict[str, Path], start: Start) -> None:
    model = f"mlx/{folders['qwen']}"
    ask: dict[str, Any] = {"max_tokens": 200, "temperature": 0}
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\n") as sluice:
        whole = await _stream(sluice, model, "tell me", **ask)
        assert whole[2]
        first = _pid(sluice)
        await _killed_and_asked(sluice, model)
        second = _pid(sluice)
        streams, watches = await _begun(sluice, model, **ask)
        os.kill(second, signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*streams)
        _figure(_ended(watches, killed))
        assert [(events, done) for _, events, done in ended if not done or events not in (["stop"], ["length"])] == []
        assert (await _stream(sluice, model, "tell me", **ask)) == whole
        assert _pid(sluice) not in {first, second}
        assert not alive(first)
        assert await _rescues(sluice) >= 1  # the others had ended: on a busy machine the first do before the last begin


async def test_a_fallback_saves_the_streams_of_a_killed_engine_at_once(
    folders: dict[str, Path], start: Start, up: Upstream
) -> None:
    model = f"mlx/{folders['qwen']}"
    text = f"MODEL_SMALL={model},up/large\nMLX_ENABLED=true\nBACKENDS__UP__PREFILL=true\n"
    async with start(text, up=up) as sluice:
        streams, watches = await _begun(sluice, "small", max_tokens=3000, temperature=0)
        os.kill(_pid(sluice), signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*streams)
        _figure(f"saved by another backend: {_ended(watches, killed)}")
        assert [(events, done) for _, events, done in ended if not done or events != ["stop"]] == []
        assert time.monotonic() - killed < 10  # half a second on an idle machine
        assert len(up.log) == 32
        assert await _rescues(sluice) >= 20
        ready = (await sluice.client.get("/health/ready")).json()
        assert ready["status"] == "ready"


@pytest.mark.long
async def test_each_of_32_streams_of_a_killed_engine_goes_on_within_a_second(
    folders: dict[str, Path], start: Start
) -> None:
    """Alone, with no other backend: what is left of the answer comes from the engine's next life."""
    model = f"mlx/{folders['qwen']}"
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\n") as sluice:
        assert (await _stream(sluice, model, "tell me", max_tokens=4))[2]
        streams, watches = await _begun(sluice, model, max_tokens=400, temperature=1, seed=1)
        os.kill(_pid(sluice), signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*streams)
        _figure(f"alone: {_ended(watches, killed)}")
        assert [(events, done) for _, events, done in ended if not done or events not in (["stop"], ["length"])] == []
        assert max(watch.silence_s(killed) for watch in watches) < 1.0
        assert (await sluice.chat(model, max_tokens=2)).status_code == 200


def _ended(watches: list[Watch], killed: float) -> str:
    silent = sorted(watch.silence_s(killed) for watch in watches)
    return (
        f"32 streams ended {time.monotonic() - killed:.2f} s after the kill, "
        f"interrupted for p50 {silent[16]:.2f} s, worst {silent[-1]:.2f} s"
    )


async def _killed_and_asked(sluice: Running, model: str) -> None:
    """Kill the idle engine, and ask it something until it answers."""
    os.kill(_pid(sluice), signal.SIGKILL)
    for _ in range(3):
        assert (await sluice.chat(model, max_tokens=2)).status_code == 200


async def _rescues(sluice: Running) -> float:
    metrics = (await sluice.client.get("/metrics")).text
    found = re.search(r'^sluice_rescues_total{how="continue"} (.*)$', metrics, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


async def _begun(
    sluice: Running, model: str, **ask: Any
) -> tuple[list[asyncio.Task[tuple[str, list[Any], bool]]], list[Watch]]:
    """Begin 32 streams, and return them once each has its first content."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    watches = [Watch(begun) for _ in range(32)]
    streams = [
        asyncio.create_task(_stream(sluice, model, f"tell me {number}", watch, **ask))
        for number, watch in enumerate(watches)
    ]
    for _ in streams:
        await begun.get()
    return streams, watches


async def _stats(sluice: Running) -> dict[str, Any]:
    (stats,) = await _mlx(sluice).ask_engines("/stats")
    return stats


def _mlx(sluice: Running) -> MlxBackend:
    backend = sluice.gateway.backends.mlx(sluice.gateway.live.current.backend_configs["mlx"])
    assert backend is not None
    return backend


@pytest.mark.long
async def test_two_models_take_turns_where_there_is_room_for_one(folders: dict[str, Path], start: Start) -> None:
    both = [f"mlx/{folders['llama']}", f"mlx/{folders['twin']}"]
    text = f"MODEL_SMALL={both[0]}\nMODEL_MEDIUM={both[1]}\nMLX_MEMORY_GB=0.05\nRETRIES=0\n"

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
        _figure(f"48 calls to two models with room for one: {loads} loads, {took:.1f} s")
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
        _figure(f"engine: {loaded / 1e6:.0f} MB loaded, {left / 1e6:.0f} MB unloaded, weights {weights / 1e6:.0f} MB")
        assert loaded - left > weights * 0.8
        assert (await sluice.chat("small", max_tokens=2)).status_code == 200


async def test_a_larger_model_that_cannot_be_loaded_leaves_the_call_to_the_smaller(
    folders: dict[str, Path], start: Start
) -> None:
    small, large = f"mlx/{folders['qwen']}", f"mlx/{folders['corrupt']}"
    async with start(
        f"MODEL_SMALL={small}\nMODEL_MEDIUM={large},{small}\nMODEL_LARGE=groq/m\nMLX_ENABLED=true\n"
    ) as sluice:
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
    monkeypatch.setattr(respond, "SSEWriter", partial(respond.SSEWriter, keep_alive_s=0.1))
    model = f"mlx/{folders['qwen']}"
    async with start(f"MODEL_SMALL={model}\nMLX_ENABLED=true\nFIRST_CONTENT_TIMEOUT_S=0.5\n") as sluice:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 3}
        assert (await sluice.client.get("/health/ready")).json()["models"][model]["state"] == "not_loaded"
        assert sluice.gateway.backends.engine is not None
        assert sluice.gateway.backends.engine._process is None  # asking for its health starts no engine
        async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line async for line in response.aiter_lines() if line]
        first = next(index for index, line in enumerate(lines) if line.startswith("data: "))
        assert first >= 3
        assert all(line.startswith(":") for line in lines[:first])
        assert lines[-1] == "data: [DONE]"
        ready = (await sluice.client.get("/health/ready")).json()
        assert (ready["status"], ready["models"][model]["state"]) == ("ready", "ready")
        assert model in [each["id"] for each in (await sluice.client.get("/v1/models")).json()["data"]]


async def test_a_call_that_its_engine_lets_wait_has_no_limit_until_it_is_served(start: Start) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await reader.readline()).endswith(b"HTTP/1.1\r\n"):
            length = 0
            while (line := await reader.readline()).strip():
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
            body = await reader.readexactly(length)
            asked.append(head)
            if b"/admin/load" in head:
                writer.write(b'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 17\r\n\r\n{"state":"ready"}')
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            for _ in range(10):
                writer.write(b": working\n\n" if b"never" in body else b": loading 40%\n\n")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.1)
                    writer.close()  # the caller left
                    return
            for delta, finish in (({"content": "there"}, None), ({}, "stop")):
                chunk = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
                writer.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
            writer.write(b"data: [DONE]\n\n")
            break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = f"MLX_ENGINES=http://127.0.0.1:{port}\nMODEL_SMALL=mlx/m\nFIRST_CONTENT_TIMEOUT_S=0.4\n"
    async with server, start(text) as sluice:
        assert await _stream(sluice, "small", "hello") == ("there", ["stop"], True)
        (error,) = (await _stream(sluice, "small", "never"))[1]
        assert orjson.loads(error)["error"]["message"] == "mlx/m gave no content within 0.4 s."
        assert [b"/admin/load" in head for head in asked] == [True, False, False]


async def test_calls_that_wait_for_the_same_model_load_it_once_and_try_again_where_that_fails(start: Start) -> None:
    loads: list[None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/admin/load" in head:
            loads.append(None)
            body, status = b'{"state":"ready"}', b"500 Broken" if len(loads) == 1 else b"200 OK"
        else:
            message = {"role": "assistant", "content": "there"}
            body, status = (
                orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}),
                b"200 OK",
            )
        writer.write(b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\n" % status)
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = f"MLX_ENGINES=http://127.0.0.1:{port}\nMODEL_SMALL=mlx/m\nRETRIES=0\n"
    async with server, start(text) as sluice:
        answers = await asyncio.gather(*(sluice.chat("small", f"hello {n}") for n in range(8)))
        assert sorted(each.status_code for each in answers).count(200) == 7
        assert len(loads) > 1  # who waited in vain tries himself
        _mlx(sluice)._places[0].answered.clear()
        loads[1:] = []
        answers = await asyncio.gather(*(sluice.chat("small", f"again {n}") for n in range(8)))
        assert [each.status_code for each in answers] == [200] * 8
        assert len(loads) == 2


def _served(engine: Engine, folder: Path) -> int:
    """Return how many tokens an engine has generated with a model."""
    about = engine.get("/stats")["models"].get(str(folder), {})
    return int(about.get("decode_tokens", 0))


async def test_engines_elsewhere_share_the_load_and_stand_in_for_each_other(
    folders: dict[str, Path], start: Start
) -> None:
    model = str(folders["qwen"])
    with _engine(model) as (one, one_url), _engine(model) as (two, two_url):
        text = f"MLX_ENGINES={one_url},{two_url}\nENGINE_KEY=sesame\nMODEL_SMALL=mlx/{model}\n"
        async with start(text) as sluice:
            first = await sluice.chat("small", "a conversation", max_tokens=4)
            assert first.status_code == 200
            home, other = (one, two) if _served(one, folders["qwen"]) else (two, one)
            for _ in range(4):
                assert (await sluice.chat("small", "a conversation", max_tokens=4)).status_code == 200
            assert _served(other, folders["qwen"]) == 0  # it stays where it is warm
            await asyncio.gather(*(sluice.chat("small", f"one of many {n}", max_tokens=20) for n in range(16)))
            assert _served(other, folders["qwen"]) > 0
            home.process.kill()
            told = [await sluice.chat("small", "a conversation", max_tokens=4) for _ in range(6)]
            assert [each.status_code for each in told] == [200] * 6
            many = await asyncio.gather(*(_stream(sluice, "small", f"x {n}", max_tokens=8) for n in range(8)))
            assert all(done for _, _, done in many)
            assert (await sluice.client.get("/health/ready")).json()["models"][f"mlx/{model}"]["state"] == "ready"


@contextlib.contextmanager
def _engine(model: str) -> Iterator[tuple[Engine, str]]:
    """Run an engine on a port, with a key."""
    port = free_port()
    command = [sys.executable, "-m", "app", "engine", "--port", str(port), "--models", model]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(ENGINE_KEY="sesame"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}\n".encode()
        engine = Engine(process, "", Path())
        engine.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer sesame"}, timeout=60
        )
        try:
            with engine.http:
                yield engine, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_an_engine_for_other_machines_needs_a_key() -> None:
    command = [sys.executable, "-m", "app", "engine", "--host", "0.0.0.0", "--port", "0"]
    refused = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "set ENGINE_KEY" in refused.stderr
