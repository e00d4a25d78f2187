"""The settings change while calls are under way: none is lost, and all workers follow."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Running
from tests.serving import Program, program
from tests.upstream import Upstream

_ENV = "MLX_ENABLED=false\nBACKENDS__UP__BASE_URL={url}\nMODEL_LARGE=up/{model}\n"
_REPLACE = "import os,sys; open(sys.argv[1]+'.new','w').write(sys.argv[2]); os.replace(sys.argv[1]+'.new',sys.argv[1])"
LIMIT_S = 4.0
"""A second is meant; a machine that runs other tests beside this one may take longer."""
_REWRITE = "import sys; open(sys.argv[1],'w').write(sys.argv[2])"


async def _edit(env: Path, text: str, how: str = _REWRITE) -> None:
    """Change the file from a second process."""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", how, str(env), text], check=True)


class _Load:
    """Calls without a pause, until told to stop; knows when the first answer of each target came."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._changed = asyncio.Event()
        self.first: dict[str, float] = {}
        self.failed: list[str] = []
        self.calls = 0

    async def _call(self, *, stream: bool) -> None:
        body = {"model": "large", "stream": stream, "messages": [{"role": "user", "content": "SAY a b c"}]}
        answer = await self._client.post("/v1/chat/completions", json=body)
        self.calls += 1
        if answer.status_code != 200 or (stream and not answer.content.endswith(b"data: [DONE]\n\n")):
            self.failed.append(answer.text)
        target = answer.headers.get("x-sluice-target", "none")
        if target not in self.first:
            self.first[target] = time.monotonic()
            self._changed.set()

    async def run(self, number: int) -> None:
        while True:
            await self._call(stream=number % 2 == 0)

    async def seen(self, target: str, limit_s: float) -> None:
        async with asyncio.timeout(limit_s):
            while target not in self.first:
                self._changed.clear()
                await self._changed.wait()


@pytest.mark.parametrize("how", [_REWRITE, _REPLACE])
async def test_an_edit_under_load_loses_no_call_and_serves_within_a_second(
    sluice: Running, up: Upstream, how: str
) -> None:
    load = _Load(sluice.client)
    workers = [asyncio.create_task(load.run(number)) for number in range(8)]
    await load.seen("up/large", 5)
    for model in ("second", "third-pace:1"):
        await _edit(sluice.env, _ENV.format(url=up.url, model=model), how)
        await load.seen(f"up/{model}", LIMIT_S)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert load.failed == []
    assert load.calls > 20


async def test_a_broken_edit_changes_nothing_and_shows(sluice: Running, up: Upstream) -> None:
    metrics = sluice.gateway.metrics
    assert b"sluice_config_ok 1.0" in metrics.text()
    await _edit(sluice.env, "PORT=x\nMODEL_LARGE=up/other\n")
    told = await _ready(sluice.client, lambda body: not body["config"]["ok"])
    assert told["status"] == "degraded"
    assert told["config"]["error"].startswith("PORT")
    assert b"sluice_config_ok 0.0" in metrics.text()
    assert (await sluice.chat("large")).headers["x-sluice-target"] == "up/large"
    await _edit(sluice.env, _ENV.format(url=up.url, model="mended"))
    told = await _ready(sluice.client, lambda body: body["config"]["ok"])
    assert (told["status"], told["config"]["error"]) == ("ready", None)
    assert b"sluice_config_ok 1.0" in metrics.text()
    assert (await sluice.chat("large")).headers["x-sluice-target"] == "up/mended"


async def _ready(client: httpx.AsyncClient, wish: Any) -> Any:
    """Ask until readiness is as wished."""
    async with asyncio.timeout(2):
        while not wish(body := (await client.get("/health/ready")).json()):
            pass
    return body


async def test_a_file_that_is_no_text_does_not_stop_the_watch(sluice: Running, up: Upstream) -> None:
    sluice.env.write_bytes(b"PORT=\xff\xfe\n")
    await _ready(sluice.client, lambda body: not body["config"]["ok"])
    await _edit(sluice.env, _ENV.format(url=up.url, model="mended"))
    await _ready(sluice.client, lambda body: body["config"]["ok"])


async def _called(server: Program) -> httpx.Response:
    body = {"model": "large", "messages": [{"role": "user", "content": "x"}]}
    answer = await server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def _served_by_all(server: Program, target: str, limit_s: float = LIMIT_S) -> None:
    """Return once ten calls in a row, each on a connection of its own, were served by this target."""
    end = time.monotonic() + limit_s
    in_a_row = 0
    while in_a_row < 10:
        assert time.monotonic() < end, f"{target} does not serve everywhere"
        answer = await _called(server)
        in_a_row = in_a_row + 1 if answer.headers["x-sluice-target"] == target else 0


async def test_two_workers_reload_by_file_signal_and_endpoint_without_a_restart(up: Upstream, tmp_path: Path) -> None:
    text = _ENV.format(url=up.url, model="one") + "WORKERS=2\n"
    async with program(tmp_path / ".env", text) as server:
        port = f"PORT={server.client.base_url.port}\n"
        await _served_by_all(server, "up/one", 5)
        pids = server.workers()
        assert len(pids) == 2
        await _edit(server.env, port + text.replace("up/one", "up/two"))
        await _served_by_all(server, "up/two")
        server.env.write_text(port + text.replace("up/one", "up/three"))
        assert (await server.client.post("/admin/reload")).json() == {"ok": True, "error": None}
        await _served_by_all(server, "up/three")
        server.env.write_text(port + text.replace("up/one", "up/four"))
        os.kill(server.pid, signal.SIGHUP)
        await _served_by_all(server, "up/four")
        assert server.workers() == pids
        server.env.write_text("PORT=x\n")
        refused = await server.client.post("/admin/reload")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_configuration")
        await _served_by_all(server, "up/four")


async def test_one_scrape_shows_the_sum_of_two_workers(up: Upstream, tmp_path: Path) -> None:
    text = _ENV.format(url=up.url, model="one") + "WORKERS=2\n"
    async with program(tmp_path / ".env", text) as server:
        for _ in range(40):
            await _called(server)
        line = 'sluice_requests_total{endpoint="chat",outcome="ok",role="large",target="up/one"} 40.0'
        async with asyncio.timeout(10):  # the worker that is not scraped hands over ten times a second
            while line not in (await server.client.get("/metrics")).text.splitlines():
                pass
        for _ in range(5):
            text = (await server.client.get("/metrics")).text
            assert line in text.splitlines()
            assert "sluice_inflight 0.0" in text.splitlines()
            assert "sluice_config_ok 1.0" in text.splitlines()
