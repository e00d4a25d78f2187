"""Which target serves a call, end to end: through the OpenAI SDK, a real gateway and a scripted upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest

from tests.sdk import ROLES, say, stream
from tests.upstream import Upstream

if TYPE_CHECKING:
    from tests.conftest import Running, Start

CODE = "Write a Python function that reverses a linked list."
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
PICTURE = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
]


async def refused(sluice: Running, **more: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await say(sluice, **more)
    return caught.value


class TestTiers:
    async def test_complexity_chooses_the_tier(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            for complexity in range(1, 11):
                tier = "small" if complexity <= 4 else "medium" if complexity <= 7 else "large"
                said = await say(sluice, hints={"complexity": str(complexity)})
                assert (said.target, said.headers["x-sluice-role"]) == (f"up/{tier}", tier)
                assert said.headers["x-sluice-verdict"] == f"chat/{complexity}"

    async def test_both_thresholds_are_settings_and_live(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            sluice.env.write_text(sluice.env.read_text() + "TIER_SMALL_MAX=1\nTIER_MEDIUM_MAX=2\n")
            assert sluice.gateway.reload()
            targets = [(await say(sluice, hints={"complexity": each})).target for each in ("1", "2", "3")]
            assert targets == ["up/small", "up/medium", "up/large"]

    @pytest.mark.parametrize(
        ("task", "complexity", "tier"),
        [
            ("exercise-generation", 4, "small"),
            ("progression", 4, "small"),
            ("content_validation", 3, "small"),
            ("theory analysis", 5, "medium"),
            ("task/voicing", 5, "medium"),
            ("Creative", 6, "medium"),
            ("tutorial", 7, "medium"),
            ("curriculum-planning", 8, "large"),
        ],
    )
    async def test_a_task_carries_its_complexity(
        self, start: Start, up: Upstream, task: str, complexity: int, tier: str
    ) -> None:
        async with start(ROLES, up=up) as sluice:
            for said in (
                await say(sluice, CODE, hints={"task": task}),
                await say(sluice, metadata={"sluice_task": task}),
            ):
                assert said.target == f"up/{tier}"
                assert said.headers["x-sluice-verdict"].endswith(f"/{complexity}")

    async def test_explicit_over_task_over_classifier(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            assert (await say(sluice)).target == "up/small"
            task = {"sluice_task": "curriculum-planning"}
            assert (await say(sluice, metadata=task)).target == "up/large"
            assert (await say(sluice, metadata=task | {"sluice_complexity": "5"})).target == "up/medium"
            header = await say(sluice, hints={"complexity": "2"}, metadata=task | {"sluice_complexity": "5"})
            assert header.target == "up/small"

    async def test_code_goes_to_code_whatever_its_complexity(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            for hints in ({}, {"complexity": "9"}):
                said = await say(sluice, CODE, hints=hints)
                assert (said.target, said.headers["x-sluice-role"]) == ("up/code", "code")
                assert said.headers["x-sluice-verdict"].startswith("code/")
            assert (await say(sluice, hints={"task": "code"})).target == "up/code"

    async def test_a_task_that_is_no_text_is_the_callers_mistake(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            error = await refused(sluice, metadata={"sluice_task": 3})
            assert (error.status_code, error.param) == (400, "metadata.sluice_task")

    async def test_a_smaller_serves_where_the_larger_fails(self, start: Start, up: Upstream) -> None:
        async with start(ROLES + "MODEL_MEDIUM=up/medium-500\nRETRIES=0\n", up=up) as sluice:
            said = await say(sluice, hints={"complexity": "6"})
            assert said.target == "up/small"
            assert said.headers["x-sluice-attempts"] == "up/medium-500=server_error;up/small=ok"


class TestSwitches:
    @pytest.mark.parametrize("name", ["QWEN_ENABLED", "RUNLOOP_ENABLED"])
    async def test_qwen_switched_off_live_goes_to_groq(self, start: Start, up: Upstream, name: str) -> None:
        text = f"BACKENDS__RUNLOOP__BASE_URL={up.url}\nGROQ_BASE_URL={up.url}\nGROQ_API_KEY=k\nON_WEAK=serve\n"
        async with start(text) as sluice:
            assert (await say(sluice, CODE)).target == "runloop/qwen2.5-coder"
            sluice.env.write_text(f"{text}{name}=false\n")
            assert sluice.gateway.reload()
            said = await say(sluice, CODE)
            assert said.headers["x-sluice-attempts"] == "groq/llama-3.3-70b-versatile=ok"

    async def test_qwen_down_goes_to_groq_within_the_call(self, start: Start, up: Upstream) -> None:
        text = f"BACKENDS__RUNLOOP__BASE_URL={up.url}\nGROQ_BASE_URL={up.url}\nGROQ_API_KEY=k\nRETRIES=0\n"
        up.always("qwen2.5-coder", "503")
        async with start(text) as sluice:
            assert (await say(sluice, CODE)).target == "groq/llama-3.3-70b-versatile"

    async def test_local_only_makes_no_connection(self, start: Start) -> None:
        async with Upstream(host="127.0.0.2") as away:
            remote = (
                f"BACKENDS__AWAY__BASE_URL={away.url}\nLOCAL_ONLY=true\nMODEL_LARGE=away/large\nMODEL_CODE=away/code\n"
            )
            async with start(f"{remote}OLLAMA_ENABLED=false\n") as sluice:
                for model in ("auto", "large", "away/any", "code"):
                    error = await refused(sluice, model=model)
                    assert (error.status_code, error.code) == (403, "local_only")
            assert (away.max_open, away.log) == (0, [])

    async def test_local_only_serves_what_is_local(self, start: Start, up: Upstream) -> None:
        async with Upstream(host="127.0.0.2") as away:
            text = f"{ROLES}BACKENDS__AWAY__BASE_URL={away.url}\nLOCAL_ONLY=true\nMODEL_SMALL=away/small,up/near\n"
            async with start(text, up=up) as sluice:
                assert (await say(sluice)).target == "up/near"
            assert away.max_open == 0

    @pytest.mark.parametrize(("force", "target"), [("true", "up/s"), ("false", "away/s"), ("", "away/s")])
    async def test_force_local_llm(self, start: Start, up: Upstream, force: str, target: str) -> None:
        async with Upstream(host="127.0.0.2") as away:
            text = f"BACKENDS__AWAY__BASE_URL={away.url}\nMODEL_SMALL=away/s,up/s\nFORCE_LOCAL_LLM={force}\n"
            async with start(text, up=up) as sluice:
                assert (await say(sluice)).target == target
                if force:
                    only = "away/s" if force == "true" else "up/s"
                    error = await refused(sluice, model=only)
                    assert (error.status_code, f"FORCE_LOCAL_LLM is {force}" in error.message) == (503, True)


class TestArms:
    async def test_half_and_half_over_many_calls(self, start: Start, up: Upstream) -> None:
        text = f"{ROLES}MODEL_CODE=up/a@50,up/b@50\nON_WEAK=serve\nLOG_LEVEL=error\n"
        async with start(text, up=up) as sluice:
            records: list[Any] = []
            sluice.gateway.hooks.append(records.append)

            async def calls(client: aiohttp.ClientSession, worker: int) -> list[str]:
                found = []
                for number in range(125):
                    body = {
                        "model": "code",
                        "messages": [{"role": "user", "content": "hi"}],
                        "user": f"{worker}-{number}",
                    }
                    async with client.post(f"{sluice.url}/chat/completions", json=body) as answer:
                        found.append(answer.headers["x-sluice-target"])
                return found

            async with aiohttp.ClientSession() as client:  # the SDK would take a minute
                found = await asyncio.gather(*(calls(client, worker) for worker in range(16)))
            served = [each for some in found for each in some]
            assert len(served) == 2000
            assert 900 <= served.count("up/a") <= 1100
            assert all(record.arm == record.target for record in records)

    async def test_an_arm_sticks(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}MODEL_CODE=up/a@1,up/b@1\n", up=up) as sluice:

            async def arm(text: str, **more: Any) -> str:
                return (await say(sluice, text, model="code", **more)).target

            for name in ("u1", "u2", "u3", "u4"):
                assert len({await arm(text, user=name) for text in ("a", "b", "c")}) == 1
                assert len({await arm(text, hints={"session": name}) for text in ("a", "b", "c")}) == 1
            begun = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the first question"}]
            turns = [*begun, {"role": "assistant", "content": "an answer"}, {"role": "user", "content": "and then?"}]
            assert await arm("", messages=begun) == await arm("", messages=turns)
            assert {await arm(f"question {number}") for number in range(20)} == {"up/a", "up/b"}

    async def test_an_arm_that_is_down_falls_to_the_other(self, start: Start, up: Upstream) -> None:
        up.always("a", "503")
        async with start(f"{ROLES}MODEL_CODE=up/a@1,up/b@1\nRETRIES=0\n", up=up) as sluice:
            said = [await say(sluice, model="code", user=str(number)) for number in range(20)]
            assert {each.target for each in said} == {"up/b"}
            assert {each.headers["x-sluice-attempts"] for each in said} >= {
                "up/b=ok",
                "up/a=overloaded;up/b=ok",
            }

    async def test_an_arm_that_is_switched_off_leaves_its_share(self, start: Start, up: Upstream) -> None:
        text = f"{ROLES}BACKENDS__OFF__BASE_URL={up.url}\nBACKENDS__OFF__ENABLED=false\nMODEL_CODE=off/a@1,up/b@1\n"
        async with start(text, up=up) as sluice:
            records: list[Any] = []
            sluice.gateway.hooks.append(records.append)
            for number in range(8):
                await say(sluice, model="code", user=str(number))
            assert {str(record.arm) for record in records} == {"up/b"}

    async def test_fast_and_accurate_by_their_other_names(self, start: Start, up: Upstream) -> None:
        text = "AI_MODEL_FAST=up/fast@3,up/accurate@1\nAI_MODEL_ACCURATE=up/accurate-500,up/fast\nRETRIES=0\n"
        async with start(text, up=up) as sluice:
            answers = [await sluice.chat("fast", user=str(number)) for number in range(100)]
            arms = [answer.headers["x-sluice-target"] for answer in answers]
            assert 60 <= arms.count("up/fast") <= 90
            assert (await say(sluice, model="accurate")).target == "up/fast"


def talk(turns: int, words: int = 300) -> list[dict[str, Any]]:
    """A conversation whose turns are about as many tokens as they have words."""
    found: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    for number in range(turns):
        found += [
            {"role": "user", "content": f"question {number} " + "some words " * words},
            {"role": "assistant", "content": None, "tool_calls": [call(number)]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": "3"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    return [*found, {"role": "user", "content": "the newest question"}]


def call(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": "{}"}}


class TestHistory:
    async def test_the_oldest_turns_are_dropped(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}BACKENDS__UP__CONTEXT_WINDOW=4096\n", up=up) as sluice:
            said = await say(sluice, model="small", messages=talk(12))
            dropped = int(said.headers["x-sluice-dropped-turns"])
            sent = up.log[-1].body["messages"]
            assert 0 < dropped < 12
            assert [message["role"] for message in (sent[0], sent[-1])] == ["system", "user"]
            assert sent[-1]["content"] == "the newest question"
            assert sent[1]["content"].startswith(f"question {dropped} ")
            calls = {each["id"] for message in sent for each in message.get("tool_calls") or ()}
            assert {message["tool_call_id"] for message in sent if message["role"] == "tool"} == calls

    async def test_a_larger_window_rather_than_dropping(self, start: Start, up: Upstream) -> None:
        text = f"BACKENDS__BIG__BASE_URL={up.url}\nBACKENDS__BIG__CONTEXT_WINDOW=100000\nMODEL_SMALL=up/a,big/b\n"
        async with start(f"{text}BACKENDS__UP__CONTEXT_WINDOW=4096\n", up=up) as sluice:
            said = await say(sluice, model="small", messages=talk(12))
            assert (said.target, said.headers.get("x-sluice-dropped-turns")) == ("big/b", None)
            assert len(up.log[-1].body["messages"]) == len(talk(12))
            assert (await say(sluice, model="small")).target == "up/a"

    async def test_nothing_is_dropped_where_the_operator_says_so(self, start: Start, up: Upstream) -> None:
        text = f"{ROLES}BACKENDS__UP__CONTEXT_WINDOW=4096\nFIT_HISTORY=false\n"
        async with start(text, up=up) as sluice:
            said = await say(sluice, model="small", messages=talk(12))
            assert "x-sluice-dropped-turns" not in said.headers
            assert len(up.log[-1].body["messages"]) == len(talk(12))


class TestAbilities:
    @pytest.mark.parametrize(
        ("dialect", "more", "param"),
        [
            ("groq", {"n": 2}, "n"),
            ("groq", {"logprobs": True}, "logprobs"),
            ("ollama", {"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ],
    )
    async def test_who_lacks_an_ability_is_no_candidate(
        self, start: Start, up: Upstream, dialect: str, more: dict[str, Any], param: str
    ) -> None:
        poor = f"BACKENDS__POOR__BASE_URL={up.url}\nBACKENDS__POOR__DIALECT={dialect}\nMODEL_SMALL=poor/a,up/b\n"
        async with start(poor, up=up) as sluice:
            assert (await say(sluice, model="small")).target == "poor/a"
            assert (await say(sluice, model="small", **more)).target == "up/b"
            before = len(up.log)
            error = await refused(sluice, model="poor/a", **more)
            assert (error.status_code, error.code, error.param) == (400, "unsupported_parameter", param)
            assert len(up.log) == before

    async def test_pictures_go_to_who_can_see(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}MODEL_SMALL=up/qwen2.5-7b\nMODEL_MEDIUM=up/qwen2.5-vl-7b\n", up=up) as sluice:
            picture = [{"role": "user", "content": PICTURE}]
            said = await say(sluice, messages=picture, hints={"complexity": "1"})
            assert (said.target, said.headers["x-sluice-role"]) == ("up/qwen2.5-vl-7b", "medium")
            error = await refused(sluice, model="small", messages=picture)
            assert (error.status_code, error.param) == (400, "messages")


class TestNames:
    @pytest.mark.parametrize("configured", ["qwen/qwen-2.5-72b-instruct", "qwen-2.5-72b"])
    @pytest.mark.parametrize(
        "asked",
        ["analysis", "qwen-2.5-72b", "qwen/qwen-2.5-72b-instruct", "QWEN-2.5-72B-Instruct", "openrouter/qwen-2.5-72b"],
    )
    async def test_short_and_full_names_mean_the_same(
        self, start: Start, up: Upstream, configured: str, asked: str
    ) -> None:
        text = f"OPENROUTER_BASE_URL={up.url}\nOPENROUTER_API_KEY=k\nMODEL_ANALYSIS=openrouter/{configured}\n"
        async with start(text) as sluice:
            assert (await say(sluice, model=asked)).target == "openrouter/qwen/qwen-2.5-72b-instruct"
            assert up.log[-1].body["model"] == "qwen/qwen-2.5-72b-instruct"
            metrics = (await sluice.client.get("/metrics")).text
            assert 'target="openrouter/qwen/qwen-2.5-72b-instruct"' in metrics
            assert "openrouter/other" not in metrics

    async def test_an_alias_may_be_a_chain(self, start: Start, up: Upstream) -> None:
        async with start(f'{ROLES}MODEL_ALIASES={{"gpt-4o": "up/a-500,up/b"}}\nRETRIES=0\n', up=up) as sluice:
            assert (await say(sluice, model="gpt-4o")).target == "up/b"


class TestPreview:
    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            ({"model": "auto"}, {}),
            ({"model": "auto"}, {"x-sluice-complexity": "9"}),
            ({"model": "auto", "user": "7"}, {"x-sluice-task": "code"}),
            ({"model": "up/any"}, {}),
            ({"model": "medium", "messages": talk(12)}, {}),
        ],
    )
    async def test_it_equals_what_the_call_does(
        self, start: Start, up: Upstream, body: dict[str, Any], headers: dict[str, str]
    ) -> None:
        text = f"{ROLES}MODEL_CODE=up/a@1,up/b@1\nBACKENDS__UP__CONTEXT_WINDOW=4096\n"
        async with start(text, up=up) as sluice:
            body = {"messages": [{"role": "user", "content": "hello there"}], **body}
            told = (await sluice.client.post("/v1/route", json=body, headers=headers)).json()
            assert up.log == []
            hints = {name.removeprefix("x-sluice-"): value for name, value in headers.items()}
            said = await say(sluice, hints=hints, **body)
            assert _as_headers(told) == {name: said.headers.get(name) for name in _as_headers(told)}

    async def test_it_fails_as_the_call_does(self, start: Start, up: Upstream) -> None:
        async with start("LOCAL_ONLY=true\n", up=up) as sluice:
            told = await sluice.client.post("/v1/route", json={"messages": [{"role": "user", "content": "hi"}]})
            error = await refused(sluice)
            assert (told.status_code, told.json()["error"]["code"]) == (error.status_code, error.code)


def _as_headers(told: dict[str, Any]) -> dict[str, str | None]:
    verdict, plan = told["verdict"], told["plan"]
    return {
        "x-sluice-target": plan["candidates"][0],
        "x-sluice-role": plan["role"],
        "x-sluice-verdict": f"{verdict['kind']}/{verdict['complexity']}",
        "x-sluice-dropped-turns": str(plan["dropped_turns"]) if plan["dropped_turns"] else None,
    }


async def test_streams_are_routed_alike(start: Start, up: Upstream) -> None:
    async with start(ROLES, up=up) as sluice:
        headers, _ = await stream(sluice, CODE)
        assert (headers["x-sluice-target"], headers["x-sluice-role"]) == ("up/code", "code")
