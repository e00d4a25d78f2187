"""Our own OpenAPI document, and what happens to calls made from it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from tests.failure_play import call
from tests.processes import ONE_MODEL, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Running
    from tests.upstream import Upstream


async def test_the_document_describes_the_calls_too(sluice: Running) -> None:
    document = (await sluice.client.get("/openapi.json")).json()
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/route"):
        assert "schema" in document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert "/admin/reload" in document["paths"]
    assert (await sluice.client.get("/openapi.json")).json() == document


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_five_minutes_of_schemathesis_find_no_server_error(up: Upstream, tmp_path: Path) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed")
    text = f"BACKENDS__UP__BASE_URL={up.url}\n{ONE_MODEL}"
    async with served(tmp_path / ".env", text) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/openapi.json"
        program = "from schemathesis.cli import schemathesis; schemathesis()"
        options = ("--max-time", "300", "--checks", "not_a_server_error", "--request-timeout", "30")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, "--no-color", "fuzz", url, *options,
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await process.communicate()
        print(told.decode()[-2000:])  # noqa: T201
        assert process.returncode == 0
        assert (await call(gateway.client, "up/well", stream=True)).outcome == "whole"
