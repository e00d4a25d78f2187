"""A real Prometheus scrapes a gateway of two workers, and every panel of the Grafana files has data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.engine import tiny
from tests.local import Served, free_port, serving
from tests.plain import PLAIN
from tests.upstream import Upstream

ROOT = Path(__file__).parents[1]
BOARDS = ("overview", "money", "engine")
_CONFIG = """
global: {{scrape_interval: 500ms}}
scrape_configs:
  - job_name: sluice
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
_PRICES = "up/large: {input: 1.0, output: 2.0}\n"

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
    pytest.mark.timeout(180),
]


def _queries() -> dict[str, str]:
    """Return every query of every panel, as Grafana would send it."""
    found = {}
    for board in BOARDS:
        for panel in json.loads((ROOT / "deploy" / "grafana" / f"{board}.json").read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "30s")
                found[f"{board}: {panel['title']}: {target['refId']}"] = re.sub(r"\$(target|model)", ".*", query)
    return found


@contextlib.asynccontextmanager
async def _prometheus(folder: Path, scraped_port: int) -> AsyncIterator[httpx.AsyncClient]:
    config = folder / "prometheus.yml"
    config.write_text(_CONFIG.format(port=scraped_port))
    port = free_port()
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        command = ["prometheus", *options]
        process = await asyncio.to_thread(subprocess.Popen, command, stdout=log, stderr=log)
        try:
            async with httpx.AsyncClient(verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield client
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)


async def _empty(prometheus: httpx.AsyncClient, queries: dict[str, str]) -> set[str]:
    """Return the queries that give nothing yet."""
    empty = set()
    for name, query in queries.items():
        try:
            answer = await prometheus.get("/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return set(queries)
        if answer.status_code == 503:
            return set(queries)
        told: dict[str, Any] = answer.json()
        assert told["status"] == "success", (name, query, told)
        if not told["data"]["result"]:
            empty.add(name)
    return empty


async def _use(served: Served) -> None:
    """Make calls of every kind that a panel shows, all at once: the first of them load the local model."""
    bodies: list[dict[str, Any]] = [
        {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        for model, text in (("auto", "hello there"), ("medium", "Write a Python function that reverses a list."))
        for stream in (False, True)
    ]
    bodies += [{"model": model, "messages": [{"role": "user", "content": "hi"}]} for model in ("up/m-400", "small")]
    async with httpx.AsyncClient(verify=PLAIN, base_url=served.url, timeout=60) as http:
        await asyncio.gather(*(http.post("/chat/completions", json={"max_tokens": 4, **body}) for body in bodies))


async def test_every_panel_has_data(tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "tiny", tiny.QWEN)
    (tmp_path / "prices.yml").write_text(_PRICES)
    async with Upstream() as up:
        text = (
            f"BACKENDS__UP__BASE_URL={up.url}\nMODEL_LARGE=up/large\nMODEL_MEDIUM=up/large\nMODEL_CODE=up/large\n"
            f"MODEL_SMALL=mlx/{model}\nWORKERS=2\nRETRIES=1\n"
            f"DATA_DIR={tmp_path / 'data'}\nPRICES_FILE={tmp_path / 'prices.yml'}\n"
        )
        up.script("large", ["500"])
        serve = serving(tmp_path, text)
        served = await asyncio.to_thread(serve.__enter__)
        try:
            port = served.http.base_url.port
            assert port is not None
            async with _prometheus(tmp_path, port) as prometheus:
                await _have_data(prometheus, served)
        finally:
            await asyncio.to_thread(serve.__exit__, None, None, None)


async def _have_data(prometheus: httpx.AsyncClient, served: Served) -> None:
    """Use the gateway until every query has given something."""
    left = _queries()
    async with asyncio.timeout(120):
        while left:
            await _use(served)
            left = {name: left[name] for name in await _empty(prometheus, left)}
