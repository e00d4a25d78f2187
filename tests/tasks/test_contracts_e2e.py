"""Answers that break the contract: asked for again with the error, then of the next; and what a task's call carries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.tasks.case import INPUTS, ROLES, call, refused, stream

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.upstream import Upstream

_JUDGE = INPUTS["judge"]


async def test_one_retry_shows_the_error(up: Upstream, start: Start) -> None:
    up.script("arbiter-full", ["offschema"])
    async with start(f"{ROLES}MODEL_JUDGE=up/arbiter-full\n", up=up) as sluice:
        told = await call(sluice, "task/judge", _JUDGE)
    assert told.json["verdict"] in {"A", "B", "tie"}
    assert told.sluice["tries"] == 2
    first, second = (attempt.body["messages"] for attempt in up.log)
    assert second[: len(first)] == first
    assert [each["role"] for each in second[len(first) :]] == ["assistant", "user"]
    assert "is a required property" in second[-1]["content"]


async def test_then_the_next_candidate_is_asked_afresh(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_JUDGE=up/off-offschema,up/good-full\n", up=up) as sluice:
        told = await call(sluice, "task/judge", _JUDGE)
    assert told.headers["x-sluice-target"] == "up/good-full"
    assert told.headers["x-sluice-attempts"] == "up/off-offschema=ok;up/off-offschema=ok;up/good-full=ok"
    assert [attempt.model for attempt in up.log] == ["off-offschema", "off-offschema", "good-full"]
    assert up.log[2].body["messages"] == up.log[0].body["messages"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_else_the_violation_is_told(up: Upstream, start: Start, *, streamed: bool) -> None:
    async with start(f"{ROLES}MODEL_JUDGE=up/off-offschema,up/worse-nojson\n", up=up) as sluice:
        response = await sluice.chat("task/judge", json.dumps(_JUDGE), stream=streamed)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (502, "contract_violation")
        assert "up/off-offschema, up/worse-nojson" in error["message"]
        assert "not the JSON object" in error["message"]
        assert response.headers["x-should-retry"] == "false"
        assert "sluice_errors_total" in (await sluice.client.get("/metrics")).text
    assert len(up.log) == 4


async def test_repaired_answers_are_served_and_say_so(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_JUDGE=up/loose-full\n", up=up) as sluice:
        told = await call(sluice, "task/judge", _JUDGE)
    assert told.json["verdict"]
    assert (told.sluice["repaired"], told.sluice["tries"]) == (True, 1)


async def test_an_answer_in_the_wrong_language_is_asked_for_once_more(up: Upstream, start: Start) -> None:
    query = "Напиши мне короткое стихотворение о том, как человек учится играть на скрипке каждый вечер."
    async with start(f"{ROLES}MODEL_MEDIUM=up/medium-english:x1-russian:after1\n", up=up) as sluice:
        told = await call(sluice, "task/creative", query)
        assert told.sluice["language"] == {"expected": "ru", "answer": "ru", "ok": True}
        assert "must be in Russian" in up.log[1].body["messages"][-1]["content"]
    up.reset()
    async with start(f"{ROLES}MODEL_MEDIUM=up/medium-english\n", up=up) as sluice:
        told = await call(sluice, "task/creative", query)
        assert told.sluice["language"] == {"expected": "ru", "answer": "en", "ok": False}
        assert "rather speak English" in told.text
        assert len(up.log) == 2


async def test_a_russian_query_is_answered_in_russian(up: Upstream, start: Start) -> None:
    posts = [{"telegram_message_id": 1, "text": "Backups."}]
    async with start(ROLES, up=up) as sluice:
        told = await call(sluice, "task/map", {"query": "Как сделать резервную копию базы данных?", "posts": posts})
    assert "Write every reason and the summary in Russian." in up.log[0].body["messages"][0]["content"]
    assert told.sluice["language"]["expected"] == "ru"


async def test_the_callers_complexity_wins_over_the_tasks_and_the_classifiers(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        for task, verdict, target in (
            ("exercise-generation", "creative/4", "up/small-full"),
            ("progression", "creative/4", "up/small-full"),
            ("content-validation", "analysis/3", "up/small-full"),
            ("theory-analysis", "analysis/5", "up/medium-full"),
            ("voicing", "creative/5", "up/medium-full"),
            ("creative", "creative/6", "up/medium-full"),
            ("tutorial", "creative/7", "up/medium-full"),
            ("curriculum-planning", "creative/8", "up/large-full"),
        ):
            told = await call(sluice, f"task/{task}", INPUTS[task])
            assert (told.headers["x-sluice-verdict"], told.headers["x-sluice-target"]) == (verdict, target)
        told = await call(sluice, "task/voicing", INPUTS["voicing"], {"complexity": "9"})
        assert (told.headers["x-sluice-verdict"], told.headers["x-sluice-target"]) == ("creative/9", "up/large-full")
        told = await call(sluice, "task/voicing", INPUTS["voicing"], {"task": "content-validation"})
        assert told.headers["x-sluice-verdict"] == "creative/5"  # the model's name says which task it is
        told = await call(sluice, "task/map", INPUTS["map"], {"complexity": "1"})
        assert told.headers["x-sluice-role"] == "analysis"  # a role of its own does not go by complexity


async def test_wishes_of_the_caller_go_along(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        await call(sluice, "task/judge", _JUDGE, temperature=0.9, seed=7, max_tokens=4000)
    body = up.log[0].body
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.9, 7, 4000)
    assert "metadata" not in body


async def test_a_strict_schema_goes_to_those_who_take_one(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        await call(sluice, "task/judge", _JUDGE)
    form = up.log[0].body["response_format"]["json_schema"]
    assert form["strict"] is True
    assert "maxLength" not in json.dumps(form)
    assert "maxLength" in up.log[0].body["messages"][0]["content"]


async def test_those_who_take_no_schema_are_asked_for_json_and_told_by_the_prompt(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}BACKENDS__UP__DIALECT=groq\nMODEL_JUDGE=up/llama\n", up=up) as sluice:
        await refused(sluice, "task/judge", json.dumps(_JUDGE))  # this scripted model cannot read
    assert up.log[0].body["response_format"] == {"type": "json_object"}
    assert "JSON schema" in up.log[0].body["messages"][0]["content"]


async def test_who_refuses_the_format_is_asked_without_it_from_then_on(up: Upstream, start: Start) -> None:
    async with start(f"{ROLES}MODEL_JUDGE=up/old-noformat\n", up=up) as sluice:
        for _ in range(2):
            await refused(sluice, "task/judge", json.dumps(_JUDGE))
    assert [attempt.status for attempt in up.log] == [400, 200, 200, 200, 200]
    assert ["response_format" in attempt.body for attempt in up.log] == [True, False, False, False, False]


async def test_streams_end_with_what_there_is_to_tell(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        headers, chunks = await stream(
            sluice,
            "task/judge",
            _JUDGE,
            stream_options={"include_usage": True},
            extra_headers={"x-sluice-performance": "true"},
        )
        assert headers["x-sluice-prompt"].startswith("judge@")
        (told,) = [chunk.to_dict()["sluice"] for chunk in chunks if "sluice" in chunk.to_dict()]
        assert told["task"] == "judge"
        assert chunks[-1].usage is not None
        performance = chunks[-1].to_dict()["performance"]
        parts = (performance[name] for name in ("promptBuildMs", "inferenceMs", "parseMs"))
        assert sum(parts) == pytest.approx(performance["totalMs"], abs=0.01)


async def test_earlier_turns_are_left_out_and_counted(up: Upstream, start: Start) -> None:
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "first"},
        {"role": "user", "content": json.dumps(_JUDGE)},
    ]
    async with start(ROLES, up=up) as sluice:
        response = await sluice.client.post("/v1/chat/completions", json={"model": "task/judge", "messages": messages})
    assert response.json()["sluice"]["dropped_turns"] == 2
    assert "pirate" not in json.dumps(up.log[0].body)


async def test_the_preview_shows_role_and_complexity(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        body = {"model": "task/tutorial", "messages": [{"role": "user", "content": "scales"}]}
        told = (await sluice.client.post("/v1/route", json=body)).json()
        assert told["task"] | {"prompt": ""} == {"name": "tutorial", "prompt": "", "role": "auto", "complexity": 7}
        assert told["verdict"]["complexity"] == 7
        assert told["plan"]["candidates"][0] == "up/medium-full"
        told = (await sluice.client.post("/v1/route", json={**body, "model": "pipeline/energy-recommendation"})).json()
        assert set(told["stages"]) == {"usage-summary", "plan-scoring", "narrative"}
        assert told["stages"]["usage-summary"]["task"]["role"] == "fast"
        body["model"] = "task/none"
        assert (await sluice.client.post("/v1/route", json=body)).status_code == 404
    assert up.log == []
