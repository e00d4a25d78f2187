"""The bench of the gateway runs, with and without a C compiler, and every call of it is answered."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_SHORT = ("--seconds", "0.3", "--rounds", "1", "--concurrency", "2", "--workers", "1", "--parts", "calls,streams")


@pytest.mark.parametrize("path", [os.environ["PATH"], "/nowhere"], ids=["compiled", "python"])
async def test_the_bench_measures_sluice(tmp_path: Path, path: str) -> None:
    command = [sys.executable, str(_ROOT / "bench" / "gateway"), *_SHORT, "--json", str(tmp_path / "figures")]
    environment = {**os.environ, "PATH": path}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    out, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert b"refused" not in out, told.decode()
    assert b"| memory before load | 80 MB | 60 MB |" in out
    assert b"| Sluice |" in out
    figures = json.loads((tmp_path / "figures").read_text())
    assert figures["Sluice/calls/2"]["ok"] > 0
    assert figures["Sluice/streams/16"]["events_s"] > 0
