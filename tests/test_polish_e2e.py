"""What becomes of a weak answer, end to end: through the OpenAI SDK, a real gateway and a scripted upstream."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from app.api.respond import SSEWriter
from tests.sdk import ROLES, say, stream, streamed_text
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.trace import Record
    from tests.conftest import Running, Start

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CUT = "finish:length"
"""What makes a scripted answer weak: it says that it was cut off."""
DRAFT = "You said: hello there"
BUFFER = "POLISH_STREAMS=buffer\n"


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    """An upstream whose small model gives weak drafts."""
    async with Upstream() as upstream:
        upstream.always("small", CUT)
        yield upstream


def records_of(sluice: Running) -> list[Record]:
    found: list[Record] = []
    sluice.gateway.hooks.append(found.append)
    return found


class TestPolish:
    async def test_a_weak_draft_is_polished(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            records = records_of(sluice)
            said = await say(sluice, max_tokens=900, user="u")
            assert said.headers["x-sluice-faults"] == "cut_off"
            assert said.headers["x-sluice-polished"] == "yes"
            assert said.headers["x-sluice-attempts"] == "up/small=ok;up/polish=ok"
            assert (said.target, said.headers["x-sluice-role"], said.body.model) == ("up/polish", "small", "polish")
            assert said.text.startswith("You said: You improve the draft")
            draft, polish = up.log
            assert (polish.body["max_tokens"], polish.body["user"]) == (900, "u")
            assert "tools" not in polish.body
            assert all(text in polish.body["messages"][0]["content"] for text in ("hello there", DRAFT))
            assert draft.body["messages"][0]["content"] == "hello there"
            (record,) = records
            assert (record.faults, record.polished, str(record.target)) == (("cut_off",), "yes", "up/polish")
            assert record.usage is not None
            assert said.body.usage is not None
            assert record.usage.prompt == said.body.usage.prompt_tokens > 100
            assert record.chars == len(said.text)

    async def test_a_good_draft_is_served_as_it_is(self, start: Start, up: Upstream) -> None:
        up.always("small", None)
        async with start(ROLES, up=up) as sluice:
            said = await say(sluice, "SAY 4")
            assert (said.text, said.headers["x-sluice-polished"]) == ("4", "no")
            assert "x-sluice-faults" not in said.headers
            assert len(up.log) == 1

    @pytest.mark.parametrize("polisher", ["up/polish-500", "up/polish-rst", "up/polish-badjson"])
    async def test_a_failed_polish_serves_the_draft_and_says_so(
        self, start: Start, up: Upstream, polisher: str
    ) -> None:
        async with start(f"{ROLES}MODEL_POLISH={polisher}\nRETRIES=0\n", up=up) as sluice:
            records = records_of(sluice)
            said = await say(sluice)
            assert (said.text[: len(DRAFT)], said.target) == (DRAFT, "up/small")
            assert said.headers["x-sluice-polished"] == "failed"
            assert said.headers["x-sluice-faults"] == "cut_off"
            assert said.headers["x-sluice-attempts"].startswith(f"up/small=ok;{polisher}=")
            assert (records[0].polished, str(records[0].target)) == ("failed", "up/small")

    async def test_a_polish_that_is_no_better_is_not_served(self, start: Start, up: Upstream) -> None:
        up.always("polish", CUT)
        async with start(ROLES, up=up) as sluice:
            said = await say(sluice)
            assert (said.target, said.headers["x-sluice-polished"]) == ("up/small", "no")
            assert said.headers["x-sluice-attempts"] == "up/small=ok;up/polish=ok"

    @pytest.mark.parametrize(
        "unset", ["MODEL_POLISH=\n", "MODEL_POLISH=groq/llama-3.3-70b-versatile\n", "MODEL_POLISH=mlx/none\n"]
    )
    async def test_nobody_to_polish_is_not_a_failure(self, start: Start, up: Upstream, unset: str) -> None:
        async with start(f"{ROLES}MLX_ENABLED=false\n{unset}", up=up) as sluice:
            said = await say(sluice)
            assert (said.target, said.headers["x-sluice-polished"]) == ("up/small", "no")

    @pytest.mark.parametrize(
        "more",
        [
            {"tools": TOOLS},
            {"response_format": SCHEMA},
            {"response_format": {"type": "json_object"}},
            {"n": 2},
            {"logprobs": True},
            {"model": "up/small"},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, PICTURE]}]},
        ],
    )
    async def test_what_a_text_cannot_stand_in_for_is_never_polished(
        self, start: Start, up: Upstream, more: dict[str, Any]
    ) -> None:
        for streams in ("off", "buffer"):
            async with start(f"{ROLES}POLISH_STREAMS={streams}\n", up=up) as sluice:
                up.log.clear()
                said = await say(sluice, **more)
                assert said.headers.get("x-sluice-polished") != "yes"
                headers, _ = await stream(sluice, **more)
                assert "x-sluice-polished" not in headers  # streamed as it came, so the headers were out before
                assert len(up.log) == 2

    async def test_plain_text_may_be_asked_for(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            said = await say(sluice, response_format={"type": "text"})
            assert said.headers["x-sluice-polished"] == "yes"

    async def test_the_footer_is_off_unless_wanted(self, start: Start, up: Upstream) -> None:
        async with start(ROLES, up=up) as sluice:
            assert "up/small" not in (await say(sluice)).text
            sluice.env.write_text(sluice.env.read_text() + "ATTRIBUTION_FOOTER=true\n")
            assert sluice.gateway.reload()
            said = await say(sluice)
            assert said.text.endswith("\n\n---\nDraft by up/small, polished by up/polish.")
            up.always("small", None)
            assert "---" not in (await say(sluice)).text

    async def test_the_deadline_holds_for_the_polish_too(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}MODEL_POLISH=up/polish-hang\nDEADLINE_S=0.5\n", up=up) as sluice:
            said = await say(sluice)
            assert (said.target, said.headers["x-sluice-polished"]) == ("up/small", "failed")
            await up.wait_for(lambda log: log[1].ended == "client_closed")
            (polish,) = up.of("polish-hang")
            assert polish.closed_at is not None
            assert polish.closed_at - up.log[0].at < 2

    async def test_a_caller_who_leaves_during_the_polish_ends_it(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}MODEL_POLISH=up/polish-hang\n", up=up) as sluice:
            for streams in (False, True):
                up.log.clear()
                sluice.env.write_text(sluice.env.read_text() + BUFFER)
                sluice.gateway.reload()
                task = asyncio.create_task(sluice.chat("auto", stream=streams))
                await up.wait_for(lambda log: len(log) == 2)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await up.wait_for(lambda log: log[1].ended == "client_closed", timeout_s=2)


class TestEscalate:
    async def test_to_the_next_tier(self, start: Start, up: Upstream) -> None:
        up.always("medium", CUT)
        up.always("large", CUT)
        text = f'{ROLES}ON_WEAK_BY_ROLE={{"small": "escalate", "medium": "serve"}}\n'
        async with start(text, up=up) as sluice:
            assert (await say(sluice)).headers["x-sluice-attempts"] == "up/small=ok;up/medium=ok"
            served = await say(sluice, hints={"complexity": "6"})
            assert served.headers["x-sluice-attempts"] == "up/medium=ok"
            polished = await say(sluice, hints={"complexity": "9"})
            assert polished.target == "up/polish"
            up.always("medium", None)
            said = await say(sluice)
            assert (said.target, said.headers["x-sluice-polished"]) == ("up/medium", "no")
            assert said.headers["x-sluice-faults"] == "cut_off"

    async def test_past_a_tier_that_nobody_serves(self, start: Start, up: Upstream) -> None:
        text = f"{ROLES}ON_WEAK=escalate\nMODEL_MEDIUM=groq/none\nMODEL_LARGE=up/small,up/large\n"
        async with start(text, up=up) as sluice:
            said = await say(sluice)
            assert said.headers["x-sluice-attempts"] == "up/small=ok;up/large=ok"
            assert said.target == "up/large"
            assert [each.body.get("stream") for each in up.log] == [None, None]

    async def test_nothing_is_above_large(self, start: Start, up: Upstream) -> None:
        up.always("large", CUT)
        async with start(f"{ROLES}ON_WEAK=escalate\n", up=up) as sluice:
            said = await say(sluice, hints={"complexity": "10"})
            assert said.headers["x-sluice-attempts"] == "up/large=ok"
            assert said.headers["x-sluice-polished"] == "no"

    async def test_serve(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}ON_WEAK=serve\n", up=up) as sluice:
            said = await say(sluice)
            assert said.headers["x-sluice-attempts"] == "up/small=ok"
            assert said.headers["x-sluice-faults"] == "cut_off"


class TestStreams:
    async def test_off_streams_as_it_comes_and_checks_afterwards(self, start: Start, up: Upstream) -> None:
        async with start(f"{ROLES}PERFORMANCE_IN_BODY=true\n", up=up) as sluice:
            records = records_of(sluice)
            headers, chunks = await stream(sluice)
            assert headers["x-sluice-target"] == "up/small"
            assert "x-sluice-faults" not in headers
            assert streamed_text(chunks).startswith(DRAFT)
            assert (chunks[-1].model_extra or {})["performance"]["faults"] == ["cut_off"]
            await up.wait_for(lambda _: bool(records))
            assert (records[0].faults, records[0].polished) == (("cut_off",), "no")
            assert len(up.log) == 1

    async def test_buffer_streams_the_polished_answer(self, start: Start, up: Upstream) -> None:
        async with start(ROLES + BUFFER, up=up) as sluice:
            records = records_of(sluice)
            headers, chunks = await stream(sluice, stream_options={"include_usage": True})
            assert (headers["x-sluice-target"], headers["x-sluice-polished"]) == ("up/polish", "yes")
            assert headers["x-sluice-faults"] == "cut_off"
            assert streamed_text(chunks).startswith("You said: You improve the draft")
            assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
            assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
            assert chunks[0].choices[0].delta.role == "assistant"
            usage = chunks[-1].usage
            assert usage is not None
            assert usage.prompt_tokens > 100
            await up.wait_for(lambda _: bool(records))
            assert records[0].usage is not None
            assert records[0].usage.prompt == usage.prompt_tokens
            assert all("stream_options" not in each.body and not each.body.get("stream") for each in up.log)

    async def test_buffer_serves_the_draft_where_the_polish_is_no_better(self, start: Start, up: Upstream) -> None:
        up.always("polish", CUT)
        async with start(ROLES + BUFFER, up=up) as sluice:
            records = records_of(sluice)
            headers, chunks = await stream(sluice)
            assert streamed_text(chunks).startswith(DRAFT)
            assert (headers["x-sluice-target"], headers["x-sluice-polished"]) == ("up/small", "no")
            await up.wait_for(lambda _: bool(records))
            usage = records[0].usage
            assert usage is not None
            assert usage.prompt == 2  # words

    async def test_comments_keep_a_held_back_stream_alive(
        self, start: Start, up: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.api.respond.SSEWriter", partial(SSEWriter, keep_alive_s=0.05))
        text = f"{ROLES}{BUFFER}MODEL_SMALL=up/slow-slow:0.3\n"
        async with start(text, up=up) as sluice:
            lines = (await sluice.chat("auto", stream=True)).text.split("\n\n")
            comments = [line for line in lines if line.startswith(":")]
            assert len(comments) >= 2
            assert lines[: len(comments)] == comments
            assert lines[-2] == "data: [DONE]"

    async def test_a_stream_that_fails_before_it_is_shown_is_an_error(self, start: Start, up: Upstream) -> None:
        everyone = "".join(f"MODEL_{role}=up/x-500\n" for role in ("SMALL", "MEDIUM", "LARGE"))
        async with start(f"{everyone}{BUFFER}RETRIES=0\n", up=up) as sluice:
            answer = await sluice.chat("auto", stream=True)
            assert answer.status_code == 500


async def test_metrics_tell_of_checks_and_polish(start: Start, up: Upstream) -> None:
    async with start(ROLES, up=up) as sluice:
        await say(sluice)
        up.always("small", None)
        await say(sluice, "SAY 4")
        await say(sluice, model="small", text='SAY ```python\nprint("4")\n```')
        text = (await sluice.client.get("/metrics")).text
        assert sample(text, "sluice_classifications_total", tier="small") == 3
        assert sample(text, "sluice_quality_faults_total", fault="cut_off") == 1
        assert sample(text, "sluice_polish_total", outcome="yes") == 1
        assert sample(text, "sluice_polish_total", outcome="not_needed") == 2
        assert sample(text, "sluice_answers_with_code_total", target="up/small", code="yes") == 1
        assert sample(text, "sluice_answer_chars_count", target="up/small") == 2
        assert sample(text, "sluice_answer_chars_count", target="up/polish") == 1
        assert 'sluice_quality_faults_total{fault="cut_off",target="up/small"}' in text


def sample(text: str, name: str, **labels: str) -> float:
    """Sum the samples of a metric that have these labels."""
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    wanted = [line for line in lines if all(f'{label}="{value}"' in line for label, value in labels.items())]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)
