"""What goes wrong with a devbox: each has its own clear error, the next candidate serves, and the breaker opens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.backend.runloop_api import SERVE
from tests.backend.runloop_case import MODEL, TARGET, env, ready, said
from tests.runloop_stub import RunloopStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

CHAIN = f"{TARGET},up/groq"


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[RunloopStub]:
    async with RunloopStub(tmp_path / "runloop") as found:
        yield found


async def deleted(stub: RunloopStub) -> str:
    return env(stub, chain=CHAIN, RUNLOOP_DEVOX_ID="dbx_gone")


async def shut_down(stub: RunloopStub) -> str:
    return env(stub, await stub.add(status="shutdown"), chain=CHAIN)


async def blueprint(stub: RunloopStub) -> str:
    stub.broken_blueprints.add("bpt_bad")
    return env(stub, chain=CHAIN, QWEN_OLLAMA_BLUEPRINT_ID="bpt_bad")


async def key(stub: RunloopStub) -> str:
    return env(stub, await stub.add(), chain=CHAIN, RUNLOOP_API_KEY="wrong")


async def tunnel(stub: RunloopStub) -> str:
    stub.refuse_tunnels = True
    return env(stub, await stub.add(), chain=CHAIN)


async def loopback(stub: RunloopStub) -> str:
    box = await stub.add(serve=False)
    await box.execute("OLLAMA_HOST=127.0.0.1 ollama serve")
    await stub.wait_for(lambda: box.serving)
    return env(stub, box, chain=CHAIN)


async def pull(stub: RunloopStub) -> str:
    box = await stub.add()
    box.ollama.always(MODEL, "cut:2")
    return env(stub, box, chain=CHAIN)


async def unreachable(stub: RunloopStub) -> str:
    return env(stub, await stub.add(), chain=CHAIN, RUNLOOP_BASE_URL="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("broken", "why", "remedy"),
    [
        (deleted, "not_ready", "Set RUNLOOP_DEVBOX_ID or QWEN_OLLAMA_BLUEPRINT_ID to one that is"),
        (shut_down, "not_ready", "Set RUNLOOP_DEVBOX_ID to another devbox"),
        (blueprint, "not_ready", "launch command failed). Look at the build log of the blueprint bpt_bad"),
        (key, "dead_key", "Check RUNLOOP_API_KEY"),
        (tunnel, "not_ready", "RUNLOOP_MODE=execute"),
        (loopback, "not_ready", "start it with OLLAMA_HOST=0.0.0.0"),
        (pull, "not_ready", "Check the model's name on ollama.com/library"),
        (unreachable, "not_ready", "did not answer"),
    ],
)
async def test_groq_serves_and_the_error_names_its_remedy(
    stub: RunloopStub,
    start: Start,
    up: Upstream,
    broken: Callable[[RunloopStub], Awaitable[str]],
    why: str,
    remedy: str,
) -> None:
    async with start(await broken(stub), up=up) as sluice:
        answer = await sluice.chat("code", "SAY hi")
        assert said(answer) == "hi"
        assert answer.headers["x-sluice-attempts"] == f"{TARGET}={why};up/groq=ok"
        alone = await sluice.chat(TARGET, "SAY hi")
        assert alone.status_code == 503
        assert remedy in alone.json()["error"]["message"]
        assert "runloop-key" not in alone.text
        state = (await ready(sluice))["backends"]["runloop"]
        assert (state["status"], state["state"]) == ("degraded", "failed")


async def test_the_breaker_opens_and_nothing_is_hammered(stub: RunloopStub, start: Start, up: Upstream) -> None:
    async with start(await blueprint(stub), up=up) as sluice:
        answers = [await sluice.chat("code", "SAY hi") for _ in range(30)]
        assert {answer.headers["x-sluice-target"] for answer in answers} == {"up/groq"}
        assert answers[-1].headers["x-sluice-attempts"] == f"{TARGET}=open;up/groq=ok"
        assert stub.count("POST /v1/devboxes") == 1


async def test_a_wrong_key_is_forgiven_once_it_is_another(stub: RunloopStub, start: Start, up: Upstream) -> None:
    async with start(await key(stub), up=up) as sluice:
        assert (await sluice.chat("code", "SAY hi")).headers["x-sluice-target"] == "up/groq"
        sluice.env.write_text(sluice.env.read_text().replace("RUNLOOP_API_KEY=wrong", "RUNLOOP_API_KEY=runloop-key"))
        assert sluice.gateway.reload()
        assert (await sluice.chat("code", "SAY hi")).headers["x-sluice-target"] == TARGET


async def warm(sluice: Running) -> None:
    assert (await sluice.chat("code", "SAY hi")).headers["x-sluice-target"] == TARGET


async def test_a_box_that_dies_in_mid_stream_is_rescued(stub: RunloopStub, start: Start, up: Upstream) -> None:
    box = await stub.add()
    async with start(env(stub, box, chain=CHAIN), up=up) as sluice:
        await warm(sluice)
        box.ollama.always(MODEL, "pace:50")
        asked = asyncio.create_task(sluice.chat("code", "SAY one two three four five six", stream=True))
        await box.ollama.wait_for(lambda log: any(each.chunks >= 2 for each in log))
        await box.suspend()
        answer = await asked
        assert "".join(_words(answer.text)) == "one two three four five six"
        assert "[DONE]" in answer.text
        assert up.log[-1].ended == "done"


async def test_ollama_that_only_ends_its_stream_is_rescued_too(stub: RunloopStub, start: Start, up: Upstream) -> None:
    box = await stub.add()
    async with start(env(stub, box, chain=CHAIN), up=up) as sluice:
        await warm(sluice)
        box.ollama.script(MODEL, ["ollsilent:2"])
        answer = await sluice.chat("code", "SAY one two three four", stream=True)
        assert "".join(_words(answer.text)) == "one two three four"


async def test_an_executed_command_is_killed_when_the_caller_leaves(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box, RUNLOOP_MODE="execute")) as sluice:
        await warm(sluice)
        box.ollama.always(MODEL, "pace:50")
        asked = asyncio.create_task(sluice.chat("code", "SAY " + "word " * 200, stream=True))
        await box.ollama.wait_for(lambda log: log[-1].chunks >= 2)
        asked.cancel()
        log = await box.ollama.wait_for(lambda log: log[-1].ended == "client_closed", 5)
        assert log[-1].chunks < 100


async def test_a_box_that_sleeps_although_it_was_awake_a_moment_ago_is_woken(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box)) as sluice:
        await warm(sluice)
        await box.suspend()
        assert said(await sluice.chat("code", "SAY again")) == "again"
        assert box.resumes == 1


async def test_an_ollama_that_nobody_started_is_started(stub: RunloopStub, start: Start) -> None:
    box = await stub.add(serve=False)
    async with start(env(stub, box)) as sluice:
        await warm(sluice)
        assert box.commands == [SERVE]


async def test_a_tunnel_whose_token_was_changed_is_opened_anew(stub: RunloopStub, start: Start) -> None:
    box = await stub.add()
    async with start(env(stub, box)) as sluice:
        await warm(sluice)
        assert box.tunnel is not None
        box.tunnel["auth_token"] = "another"
        assert said(await sluice.chat("code", "SAY again")) == "again"


def _words(text: str) -> list[str]:
    import orjson

    events = [orjson.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event.get("choices", ())]
    return [delta["content"] for delta in deltas if delta.get("content")]
