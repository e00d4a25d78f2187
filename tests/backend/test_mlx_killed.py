"""What remote calls cost while a local engine is killed: gateway, engine, upstream and clients are processes each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.engine import tiny
from tests.local import ROOT, Served, serving, serving_child
from tests.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

_WINDOW_S = 1.0
_STREAMS = 32


class Paced:
    """A process that calls a remote backend all the time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._windows: list[tuple[str, float]] = []

    def mark(self, what: str) -> None:
        """Begin a window, in which something goes on."""
        self._windows.append((what, time.monotonic()))

    def told(self) -> dict[str, tuple[int, float, float]]:
        """End, and return for each window the number of calls, and p50 and p99 in milliseconds."""
        out, _ = self._process.communicate(timeout=30)
        calls = json.loads(out)
        return {
            what: _percentiles(sorted(took * 1e3 for began, took in calls if since <= began < since + _WINDOW_S))
            for what, since in self._windows
        }


def _percentiles(found: list[float]) -> tuple[int, float, float]:
    return len(found), found[len(found) // 2], found[len(found) * 99 // 100]


@contextlib.contextmanager
def _upstream() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.upstream"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
        process.terminate()


@contextlib.contextmanager
def _paced(served: Served) -> Iterator[Paced]:
    port = httpx.URL(served.url).port
    command = [sys.executable, "-m", "tests.backend.paced", str(port), "up/large"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        yield Paced(process)
        process.kill()


def _kill(served: Served) -> None:
    (engine,) = served.engine_pids()
    os.kill(serving_child(engine), signal.SIGKILL)


async def _stream(client: httpx.AsyncClient, model: str, text: str, begun: asyncio.Queue[None]) -> bool:
    """Take a stream, tell when it has begun, and return whether it came to its end without an error."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 300}
    whole, waiting = False, True
    async with client.stream("POST", "/chat/completions", json={**body, "temperature": 0}) as response:
        async for line in response.aiter_lines():
            if waiting and '"content":"' in line.replace('"content":""', ""):
                waiting = False
                begun.put_nowait(None)
            assert '"error"' not in line
            whole = whole or line == "data: [DONE]"
    return whole


async def _streams(served: Served, model: str, paced: Paced, what: str, *, killed: bool) -> None:
    """Run many streams, and mark when all have begun; then kill their engine or do not."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    limits = httpx.Limits(max_connections=_STREAMS)
    async with httpx.AsyncClient(verify=PLAIN, base_url=served.url, timeout=60, limits=limits) as client:
        tasks = [asyncio.create_task(_stream(client, model, f"tell {n}", begun)) for n in range(_STREAMS)]
        for _ in tasks:
            await begun.get()
        paced.mark(what)
        if killed:
            _kill(served)
        assert all(await asyncio.gather(*tasks))


@pytest.mark.long
async def test_remote_calls_hardly_notice_that_32_streams_of_a_killed_engine_are_rescued(tmp_path: Path) -> None:
    model = f"mlx/{tiny.make(tmp_path / 'qwen', tiny.RECIPES['qwen'])}"
    with _upstream() as url:
        text = f"MODEL_SMALL={model}\nBACKENDS__UP__BASE_URL={url}\nMODEL_LARGE=up/large\n"
        with serving(tmp_path, text) as served:
            assert served.chat(model, max_tokens=2).status_code == 200
            with _paced(served) as paced:
                paced.mark("with an idle engine")
                assert served.chat("up/large-slow:1.2", "SAY x").status_code == 200
                paced.mark("while an idle engine is killed and serves again")
                _kill(served)
                for _ in range(20):
                    assert served.chat(model, max_tokens=2).status_code == 200
                await _streams(served, model, paced, "beside 32 streams", killed=False)
                await _streams(served, model, paced, "while 32 streams of a killed engine are rescued", killed=True)
                told = paced.told()
    for what, (count, p50, p99) in told.items():
        sys.stdout.write(f"\nremote calls {what}: {count} calls, p50 {p50:.1f} ms, p99 {p99:.1f} ms\n")
    assert max(p99 for _, _, p99 in told.values()) < 2000
