"""Roles that are set back: on every gateway that shares the database, through restarts, until they are armed again."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from app.call import Target
from app.cli.commands import cli
from app.ledger import parity
from app.ledger.db import Database, address
from app.parity.keeper import Keeper
from app.route.parity import Sample, Standing, Trial
from app.route.sequential import Rules, State
from tests.conftest import Running, running
from tests.parity.test_shadow import opened
from tests.upstream.client import ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upstream import Upstream

TRIAL = Trial("fast", "", Target("up", "cheap"), Target("up", "good"), rules=Rules(budget=50))


@pytest.fixture
def text(tmp_path: Path, up: Upstream) -> str:
    return (
        f"MLX_ENABLED=false\nBACKENDS__UP__BASE_URL={up.url}\nDATA_DIR={tmp_path}/data\nMODEL_FAST=up/cheap\n"
        "PARITY__FAST__REFERENCE=up/good\nPARITY_MAX_SAMPLES=50\n"
    )


async def breach(tmp_path: Path) -> None:
    """Write down what a breach needs, as another host would."""
    found = address("", f"{tmp_path}/data")
    assert found is not None
    database = Database(found)
    await database.start()
    for _ in range(15):
        lost = Sample(uuid.uuid4().hex, "req_1", int(time.time() * 1000), -1.0, "judge")
        await parity.add(database, TRIAL, lost, roll_back=True)
    await database.close()


async def serves(sluice: Running, target: str) -> None:
    """Wait until the role is served by a target, a second at most after another host decided it."""
    async with asyncio.timeout(5):
        while True:
            if (await sluice.chat("fast")).headers["x-sluice-target"] == target:
                return
            await asyncio.sleep(0.02)


async def _fast(sluice: Running) -> dict[str, Any]:
    told = (await sluice.client.get("/admin/roles")).json()["roles"]
    found: dict[str, Any] = next(each for each in told if each["role"] == "fast")
    return found


def _stands(state: State, prompt: str) -> Standing:
    return Standing(prompt, 0, replace(TRIAL, prompt_hash=prompt), state, False, 0, None, {})


async def test_the_metric_shows_the_worst_of_a_role_until_it_is_armed_again(sluice: Running) -> None:
    keeper = Keeper(sluice.gateway)
    shown = 'sluice_parity_state{role="fast",target="up/other",task="none"}'
    for standings, number in (
        ([_stands("breached", "new"), _stands("learning", "old")], 3.0),
        ([_stands("learning", "old")], 0.0),
        ([_stands("inconclusive", "old"), _stands("certified", "newer")], 2.0),
        ([], 0.0),
    ):
        keeper.took(standings)
        assert f"{shown} {number}\n" in (await sluice.client.get("/metrics")).text


async def test_hosts_follow_restarts_keep_and_people_arm_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with running(tmp_path / "a" / ".env", text) as one, running(tmp_path / "b" / ".env", text) as other:
        await serves(one, "up/cheap")
        await breach(tmp_path)
        for each in (one, other):
            await serves(each, "up/good")
            told = await each.client.post("/v1/route", json=ask("fast"))
            assert told.json()["plan"]["candidates"] == ["up/good"]
        shown = (await one.client.get("/admin/parity")).json()
        (test,) = shown["tests"]
        assert (test["state"], test["rolled_back"], test["samples"]) == ("breached", True, 15)
        assert [each["event"] for each in shown["events"]] == ["breached"]
        role = await _fast(one)
        assert (role["chain"], role["in_force"], role["serves"]) == (["up/cheap"], ["up/good"], "up/good")
        out = await asyncio.to_thread(CliRunner().invoke, cli, ["roles", "--env-file", str(tmp_path / "a" / ".env")])
        assert "MODEL_FAST=up/cheap\n" in out.output
        assert "parity has set it back: calls go by up/good until somebody runs" in out.output
    async with running(tmp_path / "a" / ".env", text) as again:
        assert (await again.chat("fast")).headers["x-sluice-target"] == "up/good", "from the first call on"
        await opened(again.client)
        wrong = await again.client.post("/admin/parity/rearm", json={"role": "nobody"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "role")
        done = await again.client.post("/admin/parity/rearm", json={"role": "fast"})
        assert done.json()["rearmed"][0]["target"] == "up/cheap"
        await serves(again, "up/cheap")
        assert (await _fast(again))["in_force"] == ["up/cheap"]
        nothing = await again.client.post("/admin/parity/rearm", json={"role": "fast"})
        assert nothing.json()["error"]["code"] == "nothing_to_rearm"


async def test_an_edit_of_the_role_goes_over_it_and_another_target_is_served(tmp_path: Path, text: str) -> None:
    async with running(tmp_path / ".env", text) as sluice:
        await serves(sluice, "up/cheap")
        await breach(tmp_path)
        await serves(sluice, "up/good")
        sluice.env.write_text(text.replace("MODEL_FAST=up/cheap", "MODEL_FAST=up/other"))
        await serves(sluice, "up/other")


def test_the_command_line_shows_and_arms(tmp_path: Path, text: str) -> None:
    env = tmp_path / ".env"
    env.write_text(text)
    run = CliRunner()
    assert "no test has a sample yet" in run.invoke(cli, ["parity", "--env-file", str(env)]).output
    asyncio.run(breach(tmp_path))
    shown = run.invoke(cli, ["parity", "--env-file", str(env)]).output
    assert "fast: up/cheap against up/good: breached, the role is set back" in shown
    assert "-100.00 [-100.00, " in shown
    assert run.invoke(cli, ["parity", "rearm", "code", "--env-file", str(env)]).exit_code == 1
    done = run.invoke(cli, ["parity", "rearm", "FAST", "--env-file", str(env)])
    assert (done.exit_code, done.output) == (0, "fast: up/cheap is in use again; its test begins anew\n")
    env.write_text(f"{text}DATABASE_URL=off\n")
    assert run.invoke(cli, ["parity", "--env-file", str(env)]).exit_code == 1
