"""``sluice chat`` and ``sluice bench`` as people run them, against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from app.cli.bench import quantiles
from tests import forks
from tests.conftest import Start
from tests.upstream import Upstream

_ROLES = "MODEL_LARGE=up/large\nMODEL_SMALL=up/small\nAPI_KEYS=sk-one\n"


async def sluice(*words: str, cwd: Path, typed: str = "", **env: str) -> tuple[int, str, str]:
    """Run a command with what a person types; return status, output and errors."""
    done = await asyncio.to_thread(forks.run, "app", *words, cwd=cwd, env=os.environ | env, typed=typed)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


async def test_a_conversation_with_its_price_under_each_answer(start: Start, up: Upstream, tmp_path: Path) -> None:
    async with start(_ROLES, up=up) as served:
        root = served.url.removesuffix("/v1")
        typed = "/system Be brief.\nSAY first words\n/model small\nSAY more\n/reset\n/nonsense\n\n/quit\nnever\n"
        status, out, err = await sluice(
            "chat", "--model", "large", "--url", root, "--key", "sk-one", cwd=tmp_path, typed=typed
        )
    assert (status, err) == (0, "")
    assert "first words" in out
    assert "up/large · role large" in out
    assert "ms to the first word" in out
    assert " USD" in out
    assert "/model NAME" in out
    first, second = up.log
    assert [each["role"] for each in first.body["messages"]] == ["system", "user"]
    assert second.model == "small"
    assert [each["role"] for each in second.body["messages"]] == ["system", "user", "assistant", "user"]


async def test_errors_are_told_and_the_talk_goes_on(start: Start, up: Upstream, tmp_path: Path) -> None:
    async with start("RETRIES=0\nMODEL_LARGE=up/large\nAPI_KEYS=sk-one\n", up=up) as served:
        root = served.url.removesuffix("/v1")
        typed = "hi\n/model up/m-400\nhi\n/model large\nSAY fine\n"
        status, out, err = await sluice("chat", "--url", root, cwd=tmp_path, typed=typed, SLUICE_API_KEY="sk-one")
        assert (status, err.count("error: "), "fine" in out) == (0, 1, True)
        status, _, err = await sluice("chat", "--url", root, "--key", "wrong", cwd=tmp_path, typed="hi\n")
        assert (status, "Incorrect API key" in err) == (0, True)


async def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9\n")
    _, _, err = await sluice("chat", cwd=tmp_path, typed="hi\n")
    assert "start it with scripts/serve" in err
    status, out, _ = await sluice("bench", "--calls", "2", cwd=tmp_path)
    assert (status, "2 failed: No Sluice answers" in out) == (1, True)


async def test_bench_counts_what_was_done(start: Start, up: Upstream, tmp_path: Path) -> None:
    async with start(_ROLES, up=up) as served:
        root = served.url.removesuffix("/v1")
        options = ("--calls", "7", "--concurrency", "3", "--model", "small", "--url", root, "--key", "sk-one")
        status, out, _ = await sluice("bench", "SAY one two three", *options, "--json", cwd=tmp_path)
        told = json.loads(out)
        assert (status, told["calls"], told["errors"], told["targets"]) == (0, 7, {}, {"up/small": 7})
        assert told["first_word_ms"]["p50"] <= told["total_ms"]["p99"]
        assert 0 < told["sluice_ms"]["p50"] < told["total_ms"]["p99"]
        status, out, _ = await sluice("bench", *options, cwd=tmp_path)
        assert (status, "7 by up/small" in out, "Sluice's own" in out) == (0, True, True)
    assert len(up.log) == 14


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], {}),
        ([5.0], {"p50": 5.0, "p95": 5.0, "p99": 5.0}),
        ([float(each) for each in range(101)], {"p50": 50.0, "p95": 95.0, "p99": 99.0}),
    ],
)
def test_quantiles_by_nearest_rank(values: list[float], told: dict[str, float]) -> None:
    assert quantiles(values) == told
