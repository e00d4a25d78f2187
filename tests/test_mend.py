"""Mending at the seams that end-to-end tests do not reach: damaged prompts and odd answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sdk import ROLES
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Start


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.always("small", "finish:length")
        yield upstream


async def test_a_prompt_that_cannot_be_read_is_a_failed_polish(start: Start, up: Upstream, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "polish.md").write_bytes(b"\xff\xfe not UTF-8")
    async with start(f"{ROLES}PROMPTS_DIR={prompts}\n", up=up) as sluice:
        answer = await sluice.chat("auto")
        assert (answer.status_code, answer.headers["x-sluice-polished"]) == (200, "failed")
        assert answer.headers["x-sluice-target"] == "up/small"


async def test_the_operators_prompt_is_used(start: Start, up: Upstream, tmp_path: Path) -> None:
    (tmp_path / "polish.md").write_text("SAY mended")
    async with start(f"{ROLES}PROMPTS_DIR={tmp_path}\n", up=up) as sluice:
        answer = await sluice.chat("auto")
        assert answer.json()["choices"][0]["message"]["content"] == "mended"


async def test_the_breaker_of_the_polisher_is_its_own(start: Start, up: Upstream) -> None:
    up.always("polish", "500")
    async with start(f"{ROLES}RETRIES=0\n", up=up) as sluice:
        answers = [await sluice.chat("auto") for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-sluice-polished"] for answer in answers} == {"failed"}
        assert answers[-1].headers["x-sluice-attempts"] == "up/small=ok;up/polish=open"
        assert len(up.of("polish")) < 30


async def test_a_local_only_polish_that_may_not_be_is_not_a_failure(start: Start, up: Upstream) -> None:
    async with start(f"{ROLES}MODEL_POLISH=groq/any\nLOCAL_ONLY=true\n", up=up) as sluice:
        assert (await sluice.chat("auto")).headers["x-sluice-polished"] == "no"


@pytest.mark.parametrize("own", ["polish", "small"])
async def test_a_polisher_that_is_the_drafter_is_told_apart(start: Start, up: Upstream, own: str) -> None:
    up.always("small", None)
    up.script("small", ["finish:length"])
    async with start(f"{ROLES}MODEL_POLISH=up/{own}\n", up=up) as sluice:
        answer = await sluice.chat("auto")
        assert answer.headers["x-sluice-attempts"] == f"up/small=ok;up/{own}=ok"
        assert answer.headers["x-sluice-polished"] == "yes"
