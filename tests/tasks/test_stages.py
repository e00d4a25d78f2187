"""Pipelines: stages that run at once, each timed, and failures that take no other stage along."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from app.tasks.stages import camel
from tests.tasks.case import ENERGY, ROLES, call, refused, stream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.upstream import Upstream

_NAME = "pipeline/energy-recommendation"
_SLOW = f"{ROLES}MODEL_FAST=up/fast-full-slow:0.3\nMODEL_ACCURATE=up/accurate-full-slow:0.3\nRETRIES=0\n"
_PARTS = ("promptBuildMs", "inferenceMs", "parseMs")


async def test_independent_stages_overlap_and_the_timings_add_up(up: Upstream, start: Start) -> None:
    async with start(_SLOW, up=up) as sluice:
        records: list[Any] = []
        sluice.gateway.hooks.append(records.append)
        told = await call(sluice, _NAME, ENERGY)
    value = told.json
    assert (value["ok"], value["errors"]) == (True, [])
    assert set(value["stages"]) == {"usageSummary", "planScoring", "narrative"}
    assert value["stages"]["planScoring"]["output"]["scores"][0]["id"] == "plan-0"
    assert value["output"] == value["stages"]["narrative"]["output"]
    assert {each["status"] for each in value["stages"].values()} == {"ok"}
    performance = value["performance"]
    total = performance.pop("totalMs")
    for stage in performance.values():
        assert sum(stage[part] for part in _PARTS) == pytest.approx(stage["totalMs"], abs=0.01)
        assert stage["inferenceMs"] >= 300
    assert total < sum(stage["totalMs"] for stage in performance.values()) - 250
    assert total >= performance["narrative"]["totalMs"] + performance["planScoring"]["totalMs"] - 5
    first, second, third = sorted(up.log, key=lambda attempt: attempt.at)
    assert second.at < (first.ended_at or 0) <= third.at
    (record,) = records
    assert (record.task, len(record.attempts), record.outcome) == ("energy-recommendation", 3, "ok")
    assert sum(record.stages_ms.values()) == pytest.approx(record.total_ms, abs=0.1)
    assert told.headers["x-sluice-prompt"].startswith("energy-recommendation@")


async def test_what_later_stages_get_is_what_earlier_ones_gave(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        value = (await call(sluice, _NAME, ENERGY)).json
    narrated = up.log[-1].body["messages"][-1]["content"]
    for stage in ("usageSummary", "planScoring"):
        assert json.dumps(value["stages"][stage]["output"], separators=(",", ":")) in narrated
    assert "No long contracts." in narrated


async def test_stage_2_failing_leaves_the_outputs_of_1_and_3_and_a_clear_error(up: Upstream, start: Start) -> None:
    up.mark("compare energy plans", ["500"] * 9)
    async with start(_SLOW, up=up) as sluice:
        value = (await call(sluice, _NAME, ENERGY)).json
    stages = value["stages"]
    assert {name: each["status"] for name, each in stages.items()} == {
        "usageSummary": "ok",
        "planScoring": "failed",
        "narrative": "ok",
    }
    assert value["ok"] is False
    assert value["output"] == stages["narrative"]["output"]
    assert stages["usageSummary"]["output"]["pattern"]
    assert stages["planScoring"]["output"] is None
    (error,) = value["errors"]
    assert error["stage"] == "planScoring"
    assert error["message"]
    assert "null" in up.log[-1].body["messages"][-1]["content"]  # the narrative was told that there are no scores


async def test_where_no_stage_succeeds_the_call_fails(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_FAST=up/a-400filter\nMODEL_ACCURATE=up/b-400filter\n", up=up) as sluice:
        status, error = await refused(sluice, _NAME, ENERGY)
    assert (status, error["code"]) == (400, "content_filter")


async def test_a_wrong_input_is_refused_before_anything_is_sent(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        status, error = await refused(sluice, _NAME, {"usage": ENERGY["usage"], "plans": []})
        assert (status, error["param"]) == (400, "inputs.plans")
        assert (await refused(sluice, _NAME, "just words"))[0] == 400
    assert up.log == []


async def test_progress_of_the_stages(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        _, chunks = await stream(sluice, _NAME, ENERGY, extra_headers={"x-sluice-progress": "events"})
        told = [chunk.to_dict()["sluice"]["progress"] for chunk in chunks if not chunk.choices]
        ended = [(each["stage"], each["state"]) for each in told if each["state"] != "begun"]
        assert set(ended[:2]) == {("usageSummary", "ok"), ("planScoring", "ok")}
        assert ended[2] == ("narrative", "ok")
        text = (await sluice.chat(_NAME, json.dumps(ENERGY), stream=True)).text
        assert sum(line.startswith(": {") for line in text.splitlines()) == 6


async def test_the_deadline_reaches_every_stage(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_FAST=up/fast-hang\nMODEL_ACCURATE=up/accurate-full\n", up=up) as sluice:
        headers = {"x-stainless-read-timeout": "1"}
        response = await sluice.chat(_NAME, json.dumps(ENERGY), headers=headers)
        value = json.loads(response.json()["choices"][0]["message"]["content"])
        assert value["stages"]["usageSummary"]["status"] == "failed"
        assert value["stages"]["planScoring"]["status"] == "ok"
        assert 900 <= value["performance"]["usageSummary"]["totalMs"] <= 1900
        await up.wait_for(lambda log: all(each.ended != "open" for each in log))


async def test_a_caller_that_leaves_stops_every_stage(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_FAST=up/fast-hang\nMODEL_ACCURATE=up/accurate-hang\n", up=up) as sluice:
        work = asyncio.create_task(sluice.chat(_NAME, json.dumps(ENERGY)))
        await up.wait_for(lambda log: len(log) == 2)
        work.cancel()
        await up.wait_for(lambda log: all(each.ended == "client_closed" for each in log))
        assert len(up.log) == 2


_OWN = """
inputs: {text: {type: string}}
stages:
  first-look: {task: translation, inputs: {text: inputs.text}}
  second: {task: creative, inputs: {wish: stages.first-look.translation}, optional: true}
  third: {task: tutorial, inputs: {topic: stages.second}}
output: first-look
"""


async def test_the_operators_own_pipeline(up: Upstream, start: Start, tmp_path: Path) -> None:
    (tmp_path / "own" / "pipelines").mkdir(parents=True)
    (tmp_path / "own" / "pipelines" / "mine.yaml").write_text(_OWN)
    async with start(f"{ROLES}PROMPTS_DIR={tmp_path / 'own'}\nRETRIES=0\n", up=up) as sluice:
        value = (await call(sluice, "pipeline/mine", {"text": "Guten Tag"})).json
        assert value["ok"]
        assert value["output"] == value["stages"]["firstLook"]["output"] == {"translation": "It is scripted."}
        up.mark("gift for words", ["500"] * 9)
        value = (await call(sluice, "pipeline/mine", {"text": "Guten Tag"})).json
        assert {name: each["status"] for name, each in value["stages"].items()} == {
            "firstLook": "ok",
            "second": "failed",
            "third": "skipped",
        }
        assert [error["code"] for error in value["errors"]][1] == "stage_skipped"


def test_names_for_json() -> None:
    assert [camel(name) for name in ("usage-summary", "a", "one-two-3")] == ["usageSummary", "a", "oneTwo3"]
