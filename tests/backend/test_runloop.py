"""Runloop from the gateway's front door to the stub: waking, sleeping, streaming, and prompts that stay prompts."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import openai
import pytest

from tests.backend.runloop_case import INJECTIONS, MODEL, TARGET, env, metric, ready, said
from tests.conftest import running
from tests.runloop_stub import RunloopStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Start
    from tests.upstream import Upstream
    from tests.upstream.log import Attempt


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[RunloopStub]:
    async with RunloopStub(tmp_path / "runloop") as found:
        yield found


@pytest.mark.parametrize("mode", ["tunnel", "execute"])
async def test_fifty_calls_wake_a_suspended_box_once(stub: RunloopStub, start: Start, mode: str) -> None:
    box = await stub.add(status="suspended")
    async with start(env(stub, box, RUNLOOP_MODE=mode)) as sluice:
        answers = await asyncio.gather(*(sluice.chat("code", f"SAY answer {n}") for n in range(50)))
        assert [said(answer) for answer in answers] == [f"answer {n}" for n in range(50)]
        assert {answer.headers["x-sluice-target"] for answer in answers} == {TARGET}
        assert box.resumes == 1
        assert box.ollama.models == (MODEL,)
        assert [each.path for each in box.ollama.log].count("/api/pull") == 1
        assert await metric(sluice, 'sluice_box_wakes_total{backend="runloop",outcome="ok"}') == 1
        assert await metric(sluice, 'sluice_box_state{backend="runloop"}') == 4


async def test_streamed_tokens_arrive_one_by_one_through_the_openai_client(stub: RunloopStub, start: Start) -> None:
    box = await stub.add(status="suspended")
    async with start(env(stub, box, chain=f"{TARGET}-pace:120")) as sluice:
        client = openai.AsyncOpenAI(base_url=sluice.url, api_key="any")
        loop = asyncio.get_running_loop()
        text = "SAY def add(a, b): return a + b"
        stream = await client.chat.completions.create(
            model="code", messages=[{"role": "user", "content": text}], stream=True
        )
        arrived = [
            (loop.time(), chunk.choices[0].delta.content)
            async for chunk in stream
            if chunk.choices and chunk.choices[0].delta.content
        ]
        await client.close()
        assert "".join(piece for _, piece in arrived) == text.removeprefix("SAY ")
        assert len(arrived) == 7
        assert all(later - earlier > 0.02 for (earlier, _), (later, _) in pairwise(arrived))


async def test_a_box_is_created_from_the_blueprint_sleeps_when_idle_and_wakes_again(
    stub: RunloopStub, start: Start
) -> None:
    settings = env(stub, QWEN_OLLAMA_BLUEPRINT_ID="bpt_1", RUNLOOP_IDLE_SUSPEND_S=1)
    async with start(settings) as sluice:
        assert (await ready(sluice))["models"][TARGET]["state"] == "absent"
        assert said(await sluice.chat("code", "SAY one")) == "one"
        box = stub.only()
        assert box.blueprint_id == "bpt_1"
        assert box.tunnel is not None
        assert box.tunnel["auth_mode"] == "authenticated"
        assert (await ready(sluice))["models"][TARGET]["state"] == "ready"
        await stub.wait_for(lambda: box.status == "suspended")
        assert (await ready(sluice))["models"][TARGET]["state"] == "suspended"
        assert said(await sluice.chat("code", "SAY two")) == "two"
        assert box.resumes == 1
        assert box.launches == 2
        assert stub.count("/v1/devboxes") == 4  # listed, created, listed again; and listed to wake it


async def test_two_gateways_share_the_box_that_was_first(stub: RunloopStub, tmp_path: Path) -> None:
    settings = env(stub, QWEN_OLLAMA_BLUEPRINT_ID="bpt_1")
    async with running(tmp_path / "a.env", settings) as one, running(tmp_path / "b.env", settings) as two:
        answers = await asyncio.gather(one.chat("code", "SAY one"), two.chat("code", "SAY two"))
        assert [said(answer) for answer in answers] == ["one", "two"]
        assert [box.status for box in stub.boxes.values()].count("running") == 1


async def test_two_gateways_agree_on_a_tunnel(stub: RunloopStub, tmp_path: Path) -> None:
    settings = env(stub, await stub.add())
    async with running(tmp_path / "a.env", settings) as one, running(tmp_path / "b.env", settings) as two:
        for _ in range(2):
            answers = await asyncio.gather(one.chat("code", "SAY one"), two.chat("code", "SAY two"))
            assert [said(answer) for answer in answers] == ["one", "two"]


async def test_a_long_answer_keeps_its_box_awake(stub: RunloopStub, start: Start) -> None:
    box = await stub.add(idle_s=1)
    async with start(env(stub, box, chain=f"{TARGET}-slow:2", FIRST_CONTENT_TIMEOUT_S=9)) as sluice:
        box.ollama.models = (f"{MODEL}-slow:2",)
        assert said(await sluice.chat("code", "SAY late")) == "late"
        assert box.kept_alive >= 3
        assert box.status == "running"


async def test_a_cold_box_sends_the_call_on_and_wakes_behind_it(stub: RunloopStub, start: Start, up: Upstream) -> None:
    box = await stub.add(status="suspended")
    stub.resume_s = 0.3
    async with start(env(stub, box, chain=f"{TARGET},up/groq", RUNLOOP_ON_COLD="next"), up=up) as sluice:
        answers = await asyncio.gather(*(sluice.chat("code", "SAY hi") for _ in range(20)))
        assert {answer.headers["x-sluice-attempts"] for answer in answers} == {f"{TARGET}=cold;up/groq=ok"}
        await stub.wait_for(lambda: box.status == "running")
        await box.ollama.wait_for(
            lambda log: any(each.path == "/api/generate" and each.ended == "done" for each in log)
        )
        last = await sluice.chat("code", "SAY hi")
        assert last.headers["x-sluice-attempts"] == f"{TARGET}=ok"
        assert box.resumes == 1
        lanes = (await sluice.client.get("/admin/breakers")).json()["lanes"]
        assert lanes[TARGET]["failures"] == 0


async def test_a_cold_box_is_waited_for_where_nobody_else_can_answer(stub: RunloopStub, start: Start) -> None:
    box = await stub.add(status="suspended")
    async with start(env(stub, box, RUNLOOP_ON_COLD="next")) as sluice:
        assert said(await sluice.chat("code", "SAY hi")) == "hi"


async def test_a_call_waits_no_longer_than_it_should(stub: RunloopStub, start: Start, up: Upstream) -> None:
    box = await stub.add(status="suspended")
    stub.resume_s = 30
    async with start(env(stub, box, chain=f"{TARGET},up/groq", RUNLOOP_WAKE_TIMEOUT_S=2), up=up) as sluice:
        answer = await sluice.chat("code", "SAY hi")
        assert answer.headers["x-sluice-target"] == "up/groq"
        assert box.resumes == 1


async def test_the_switch_is_live(stub: RunloopStub, start: Start, up: Upstream) -> None:
    box = await stub.add()
    settings = env(stub, box, chain=f"{TARGET},up/groq")
    async with start(settings, up=up) as sluice:
        assert (await sluice.chat("code", "SAY hi")).headers["x-sluice-target"] == TARGET
        text = sluice.env.read_text()
        for line, target in (("QWEN_ENABLED=false\n", "up/groq"), ("", TARGET), ("RUNLOOP_ENABLED=false\n", "up/groq")):
            sluice.env.write_text(text + line)
            assert sluice.gateway.reload()
            assert (await sluice.chat("code", "SAY hi")).headers["x-sluice-target"] == target
        assert stub.count(f"{box.id}") == 1  # its state outlives reloads


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["tunnel", "execute"])
async def test_no_prompt_is_ever_executed(stub: RunloopStub, start: Start, mode: str, stream: bool) -> None:
    box = await stub.add()
    async with start(env(stub, box, RUNLOOP_MODE=mode)) as sluice:
        for prompt in INJECTIONS:
            answer = await sluice.chat("code", prompt, stream=stream)
            assert answer.status_code == 200, answer.text
        told = [each.body["messages"][0]["content"] for each in box.ollama.log if each.path.endswith("/completions")]
        assert told == INJECTIONS
        assert not list(box.home.rglob("*pwned*"))
        assert len(set(box.commands)) <= 5  # Ollama itself; list, pull, load; answer
        assert not any("pwned" in command for command in box.commands)


async def test_a_model_with_a_wicked_name_is_not_executed_either(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box, RUNLOOP_MODE="execute")) as sluice:
        answer = await sluice.chat("runloop/x;touch pwned;$(touch pwned)", "hi")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert not (box.home / "pwned").exists()


async def test_executed_answers_of_many_lines_arrive_whole(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box, RUNLOOP_MODE="execute")) as sluice:
        text = "\n".join(f"line {n} ünïcode ✓" for n in range(1000))
        assert said(await sluice.chat("code", f"SAY {text}")) == text
        streamed = await sluice.chat("code", f"SAY {text}", stream=True)
        assert streamed.text.count("data: ") > 1000
        assert "[DONE]" in streamed.text


async def test_native_calls_travel_through_the_tunnel_too(stub: RunloopStub, start: Start) -> None:
    box = await stub.add(status="suspended")
    async with start(env(stub, box, OLLAMA_NATIVE="true", OLLAMA_NUM_CTX=12000)) as sluice:
        assert said(await sluice.chat("code", "SAY hi")) == "hi"
        (asked,) = [each for each in box.ollama.log if each.path == "/api/chat"]
        assert asked.body["options"]["num_ctx"] == 12000


@pytest.mark.long
async def test_executed_answers_may_take_longer_than_a_wait_of_the_api(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box, RUNLOOP_MODE="execute")) as sluice:
        await sluice.chat("code", "SAY hi")
        sluice.client.timeout = 60
        box.ollama.script(MODEL, ["slow:27"])
        assert said(await sluice.chat("code", "SAY late")) == "late"


def _loaded(attempt: Attempt) -> bool:
    return attempt.path == "/api/generate" and attempt.ended == "done"
