"""Every prompt that ships, called as a model by the OpenAI SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from app.prompts.library import read_shelf
from app.route.tiers import TASKS
from app.tasks.contract import violations
from app.tasks.schema import shown
from tests.sdk import streamed_text
from tests.tasks.case import INPUTS, ROLES, call, refused, stream

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.upstream import Upstream

SHELF = read_shelf("")
_MODELS = ("one-full", "two-prose-full:2", "three-loose-full")
"""Three that write the same document in different ways."""


def test_all_that_ships_is_good() -> None:
    assert SHELF.broken == {}
    assert set(SHELF.tasks) == set(INPUTS)
    assert set(SHELF.pipelines) == {"energy-recommendation"}


def test_the_four_analysis_tasks_share_one_role() -> None:
    for name in ("map", "medium-scoring", "translation", "language-validation"):
        assert SHELF.tasks[name].spec.role == "analysis"


def test_the_music_tasks_have_the_complexity_that_hints_by_name_have() -> None:
    for name, (kind, complexity) in TASKS.items():
        spec = SHELF.tasks[name].spec
        assert (spec.role, spec.complexity) == ("auto", complexity)
        assert kind in {spec.kind, "chat"}


async def test_they_are_listed(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        listed = {model["id"]: model for model in (await sluice.client.get("/v1/models")).json()["data"]}
        names = [*(f"task/{name}" for name in INPUTS), "pipeline/energy-recommendation"]
        for name in names:
            assert (await sluice.client.get(f"/v1/models/{name}")).json() == listed[name]
        assert listed["task/map"]["role"] == "analysis"
        assert listed["task/map"]["prompt"] == SHELF.tasks["map"].version
        assert listed["task/tutorial"]["complexity"] == 7


async def test_each_keeps_its_contract_whichever_model_answers(up: Upstream, start: Start) -> None:
    for model in _MODELS:
        roles = "".join(f"{line.partition('=')[0]}=up/{model}\n" for line in ROLES.splitlines())
        async with start(roles, up=up) as sluice:
            for name, inputs in INPUTS.items():
                told = await call(sluice, f"task/{name}", inputs)
                assert told.headers["x-sluice-target"] == f"up/{model}"
                assert told.headers["x-sluice-prompt"] == SHELF.tasks[name].version
                _keeps(name, told.text)


def _keeps(name: str, text: str) -> None:
    output = SHELF.tasks[name].spec.output
    assert text.strip()
    if output.format == "json_schema":
        schema: Any = shown(output.wanted)
        value = json.loads(text)
        if name == "plan-scoring":
            assert [each["id"] for each in value["scores"]] == [f"plan-{number}" for number in range(12)]
        else:
            assert violations(value, schema) == []


async def test_streams_say_what_plain_calls_say(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        for name in ("map", "medium-scoring", "translation", "tutorial"):
            plain = await call(sluice, f"task/{name}", INPUTS[name])
            headers, chunks = await stream(sluice, f"task/{name}", INPUTS[name])
            assert streamed_text(chunks) == plain.text
            assert headers["x-sluice-prompt"] == SHELF.tasks[name].version
            assert chunks[-1].choices[0].finish_reason == "stop"


async def test_free_text_reaches_the_caller_as_it_comes(up: Upstream, start: Start) -> None:
    async with start(ROLES + "MODEL_MEDIUM=up/medium-words:500-pace:5\n", up=up) as sluice:
        body = {"model": "task/tutorial", "messages": [{"role": "user", "content": "scales"}], "stream": True}
        async with sluice.client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if "word3" in line:
                    break
            assert up.log[-1].ended == "open"


async def test_the_format_of_a_task_does_not_depend_on_who_answers(up: Upstream, start: Start) -> None:
    texts = []
    for model in ("one-full", "two-blocks-full", "three-prose-full"):
        async with start(f"MODEL_ANALYSIS=up/{model}\n", up=up) as sluice:
            texts.append((await call(sluice, "task/medium-scoring", INPUTS["medium-scoring"])).text)
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].startswith("Selected IDs: ")
    assert "=== POST 1 ===\nID: 1\nScore: " in texts[0]


@pytest.mark.parametrize("role", ["qwen-2.5-72b", "qwen/qwen-2.5-72b-instruct"])
async def test_short_and_full_names_of_the_analysis_model_are_one(up: Upstream, start: Start, role: str) -> None:
    text = f"OPENROUTER_BASE_URL={up.url}\nOPENROUTER_API_KEY=k\nMODEL_ANALYSIS=openrouter/{role}\n"
    async with start(text) as sluice:
        told = await call(sluice, "task/translation", INPUTS["translation"])
        assert told.headers["x-sluice-target"] == "openrouter/qwen/qwen-2.5-72b-instruct"


async def test_unknown_names(up: Upstream, start: Start) -> None:
    async with start(ROLES, up=up) as sluice:
        status, error = await refused(sluice, "task/mpa", "x")
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "task/map" in error["message"]
        assert (await refused(sluice, "pipeline/none", "x"))[0] == 404
        assert up.log == []
