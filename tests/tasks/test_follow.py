"""Prompt files and the role behind them change under load: the next call sees it, no call is harmed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from app.prompts import DIRECTORY
from tests.tasks.case import INPUTS, ROLES, call, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_FOUR = ("map", "medium-scoring", "translation", "language-validation")
_MINE = "---\nrole: analysis\ninputs: {input: {type: string}}\n---\nVersion one.\n{{ input }}\n"
_CALLS, _AT_ONCE, _FLIP = 500, 10, 250


async def test_one_variable_moves_all_four_tasks_in_a_mix_of_500_calls(up: Upstream, start: Start) -> None:
    posts = [{"telegram_message_id": number, "text": f"post {number}"} for number in range(25)]
    inputs: dict[str, Any] = {**INPUTS, "map": {"query": "q", "posts": posts}}
    seen: list[tuple[int, str]] = []
    async with start(f"{ROLES}MODEL_ANALYSIS=up/old-full\n", up=up) as sluice:
        await asyncio.gather(*(call(sluice, f"task/{name}", inputs[name]) for name in _FOUR))
        numbers = iter(range(_CALLS))

        async def worker() -> None:
            for number in numbers:
                if number == _FLIP:
                    sluice.env.write_text(sluice.env.read_text().replace("up/old-full", "up/new-full"))
                name = _FOUR[number % len(_FOUR)]
                response = await sluice.chat(f"task/{name}", json.dumps(inputs[name]))
                assert response.status_code == 200, response.text
                (target,) = {each.partition("=")[0] for each in response.headers["x-sluice-attempts"].split(";")}
                assert target == response.headers["x-sluice-target"]
                seen.append((number, target))

        await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
        await _until(lambda: sluice.gateway.live.generation > 0)
        after = await asyncio.gather(*(call(sluice, f"task/{name}", inputs[name]) for name in _FOUR))
    assert len(seen) == _CALLS
    assert {told.headers["x-sluice-target"] for told in after} == {"up/new-full"}
    assert all(target == "up/old-full" for number, target in seen if number < _FLIP - _AT_ONCE)
    assert {attempt.status for attempt in up.log} == {200}


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - the follower has no event for it
            await asyncio.sleep(0.01)


async def test_an_edited_prompt_is_used_by_the_next_call(up: Upstream, start: Start, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.md").write_text(_MINE)
    async with start(f"{ROLES}PROMPTS_DIR={own}\n", up=up) as sluice:
        first = await call(sluice, "task/mine", "hello")
        assert up.log[-1].body["messages"][-1]["content"].startswith("Version one.")
        (own / "mine.md").write_text(_MINE.replace("one", "two"))
        await _until(lambda: "two" in sluice.gateway.library.current.tasks["mine"].user)
        second = await call(sluice, "task/mine", "hello")
        assert up.log[-1].body["messages"][-1]["content"].startswith("Version two.")
        assert first.headers["x-sluice-prompt"] != second.headers["x-sluice-prompt"]


async def test_a_broken_prompt_disables_only_itself_loudly(up: Upstream, start: Start, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.md").write_text(_MINE)
    async with start(f"{ROLES}PROMPTS_DIR={own}\n", up=up) as sluice:
        await call(sluice, "task/mine", "hello")
        (own / "mine.md").write_text(_MINE.replace("{{ input }}", "{{ output }}"))
        await _until(lambda: bool(sluice.gateway.library.current.broken))
        status, error = await refused(sluice, "task/mine", "hello")
        assert (status, error["code"]) == (503, "task_broken")
        assert "'output', which is no input" in error["message"]
        assert "task/mine" not in await _listed(sluice)
        ready = (await sluice.client.get("/health/ready")).json()
        assert ready["status"] == "degraded"
        assert "task/mine" in ready["dependencies"]["prompts"]["why"]
        await call(sluice, "task/translation", INPUTS["translation"])
        (own / "mine.md").write_text(_MINE)
        await _until(lambda: not sluice.gateway.library.current.broken)
        await call(sluice, "task/mine", "hello")
        assert (await sluice.client.get("/health/ready")).json()["status"] == "ready"


async def _listed(sluice: Running) -> list[str]:
    return [model["id"] for model in (await sluice.client.get("/v1/models")).json()["data"]]


async def test_a_call_under_way_keeps_the_prompts_it_began_with(up: Upstream, start: Start, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "map.md").write_text(text := _shipped("map"))
    async with start(f"{ROLES}PROMPTS_DIR={own}\nMODEL_ANALYSIS=up/slow-full-slow:0.2\n", up=up) as sluice:
        posts = [{"telegram_message_id": number, "text": "t"} for number in range(200)]
        work = asyncio.create_task(call(sluice, "task/map", {"query": "q", "posts": posts}))
        await up.wait_for(lambda log: len(log) == 5)
        (own / "map.md").write_text(text.replace("You rank documents", "Rank documents"))
        await _until(lambda: sluice.gateway.library.current.tasks["map"].system.startswith("Rank"))
        told = await work
        assert told.sluice["items"]["done"] == 200
    systems = {attempt.body["messages"][0]["content"][:8] for attempt in up.log}
    assert systems == {"You rank"}


def _shipped(name: str) -> str:
    return (DIRECTORY / f"{name}.md").read_text()
