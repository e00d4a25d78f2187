"""Chats at a backend that speaks Anthropic's wire, over real sockets; and that wire's callers with their own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.test_dispatch import records
from tests.upstream.messages import signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
_PIXEL = "data:image/png;base64,iVBORw0KGgo="


def _env(up: Upstream, more: str = "") -> str:
    return f"ANTHROPIC_API_KEY=sk-ant\nANTHROPIC_BASE_URL={up.url}\nMODEL_LARGE=anthropic/claude-large\n{more}"


@pytest.fixture
async def sluice(up: Upstream, start: Start) -> AsyncIterator[Running]:
    up.key = "sk-ant"
    async with start(_env(up)) as found:
        yield found


@pytest.fixture
async def ai(sluice: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(sluice: Running) -> AsyncIterator[AsyncAnthropic]:
    root = sluice.url.removesuffix("/v1")
    async with AsyncAnthropic(base_url=root, api_key="any", max_retries=0) as client:
        yield client


def _said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class Person(BaseModel):
    name: str
    age: int


class TestChats:
    async def test_plain(self, ai: AsyncOpenAI, up: Upstream) -> None:
        messages: Any = [{"role": "developer", "content": "Be brief."}, *_said("SAY hello world")]
        answer = await ai.chat.completions.create(
            model="auto", messages=messages, temperature=0.5, stop=["xx"], user="u1", presence_penalty=1
        )
        assert answer.choices[0].message.content == "hello world"
        assert (answer.choices[0].finish_reason, answer.model) == ("stop", "claude-large")
        sent = up.log[0]
        assert (sent.path, sent.headers["x-api-key"]) == ("/v1/messages", "sk-ant")
        assert sent.headers["anthropic-version"] == "2026-10-21"
        assert "authorization" not in sent.headers
        assert sent.body == {
            "model": "claude-large",
            "max_tokens": 8192,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "SAY hello world"}]}],
            "stop_sequences": ["xx"],
            "metadata": {"user_id": "u1"},
        }

    async def test_stream(self, ai: AsyncOpenAI, sluice: Running) -> None:
        kept = records(sluice)
        stream = await ai.chat.completions.create(
            model="auto", messages=_said("SAY hello big world"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello big world"
        assert chunks[-1].usage
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (4, 3)
        assert kept[0].usage
        assert not kept[0].usage.estimated

    async def test_usage_includes_what_came_from_the_cache(self, ai: AsyncOpenAI, sluice: Running) -> None:
        kept = records(sluice)
        usage = '{"input_tokens": 10, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}'
        answer = await ai.chat.completions.create(
            model="auto", messages=_said(f'SCRIPT {{"say": "x", "usage": {usage}}}')
        )
        assert answer.usage
        assert answer.usage.prompt_tokens == 15
        assert answer.usage.prompt_tokens_details
        assert answer.usage.prompt_tokens_details.cached_tokens == 3
        assert kept[0].usage
        assert (kept[0].usage.prompt, kept[0].usage.cached) == (15, 3)

    async def test_tools_and_their_results(self, ai: AsyncOpenAI, up: Upstream) -> None:
        said = _said('CALL weather {"city": "Paris"}\nCALL weather {"city": "Rome"}')
        plain = await ai.chat.completions.create(
            model="auto", messages=said, tools=_TOOLS, tool_choice="required", parallel_tool_calls=False
        )
        async with ai.chat.completions.stream(model="auto", messages=said, tools=_TOOLS) as stream:
            streamed = await stream.get_final_completion()
        for answer in (plain, streamed):
            calls: Any = answer.choices[0].message.tool_calls
            assert [call.function.arguments.replace(" ", "") for call in calls] == [
                '{"city":"Paris"}',
                '{"city":"Rome"}',
            ]
            assert answer.choices[0].finish_reason == "tool_calls"
        assert up.log[0].body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        said.append(plain.choices[0].message.model_dump(exclude_none=True))
        said += [{"role": "tool", "tool_call_id": f"toolu_{n}", "content": text} for n, text in enumerate("ab")]
        final = await ai.chat.completions.create(model="auto", messages=said, tools=_TOOLS)
        assert final.choices[0].message.content == "The tool said: b"
        assert [message["role"] for message in up.log[-1].body["messages"]] == ["user", "assistant", "user"]

    async def test_schema_images_and_effort(self, ai: AsyncOpenAI, up: Upstream) -> None:
        content = [
            {"type": "text", "text": "who?", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": _PIXEL}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ]
        messages: Any = [{"role": "user", "content": content}]
        answer = await ai.chat.completions.parse(
            model="auto", messages=messages, response_format=Person, reasoning_effort="high"
        )
        assert answer.choices[0].message.parsed == Person(name="text", age=1)
        body = up.log[0].body
        assert (body["thinking"], body["output_config"]["effort"]) == ({"type": "adaptive"}, "high")
        text, inline, linked = body["messages"][0]["content"]
        assert text["cache_control"] == {"type": "ephemeral"}
        assert inline["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        assert linked["source"] == {"type": "url", "url": "https://example.org/a.png"}

    async def test_signed_thinking_makes_the_round_trip(self, ai: AsyncOpenAI, up: Upstream) -> None:
        said = _said("REASON because of that")
        first = await ai.chat.completions.create(model="auto", messages=said)
        message: Any = first.choices[0].message.model_dump(exclude_none=True)
        assert message["reasoning_content"] == "because of that"
        await ai.chat.completions.create(model="auto", messages=[*said, message, *_said("and?")])
        thought = up.log[-1].body["messages"][1]["content"][0]
        signed = {"type": "thinking", "thinking": "because of that", "signature": signature("because of that")}
        assert thought == signed

    @pytest.mark.parametrize(
        ("fault", "kind", "code"),
        [
            ("429", openai.RateLimitError, 429),
            ("529", openai.InternalServerError, 529),
            ("500", openai.InternalServerError, 500),
            ("400ctx", openai.BadRequestError, 400),
            ("401", openai.AuthenticationError, 401),
        ],
    )
    async def test_errors(self, ai: AsyncOpenAI, fault: str, kind: type[openai.APIStatusError], code: int) -> None:
        with pytest.raises(kind) as caught:
            await ai.chat.completions.create(model=f"anthropic/claude-{fault}", messages=_said("hi"))
        assert caught.value.status_code == code
        assert "sk-ant" not in caught.value.message

    async def test_a_limit_of_the_window_goes_to_a_larger_one_and_an_overload_to_the_next(
        self, ai: AsyncOpenAI, sluice: Running
    ) -> None:
        kept = records(sluice)
        for fault in ("400ctx", "529"):
            answer = await ai.chat.completions.create(
                model=f"anthropic/claude-{fault}", messages=_said("SAY x"), extra_body={"models": ["anthropic/other"]}
            )
            assert answer.model == "other"
        assert [attempt.result for attempt in kept[0].attempts] == ["context_length", "ok"]
        assert kept[1].attempts[0].result == "overloaded"

    async def test_a_cut_stream_of_a_model_that_takes_a_prefill_is_continued(self, up: Upstream, start: Start) -> None:
        async with start(_env(up, "BACKENDS__ANTHROPIC__PREFILL=true\n")) as sluice:
            kept = records(sluice)
            answer = await sluice.client.post(
                "/v1/chat/completions",
                json={
                    "model": "anthropic/claude-prefill-cut:3:x1",
                    "messages": _said("SAY one two three four five"),
                    "stream": True,
                },
            )
        said = [part.split('"')[0] for part in answer.text.split('"content":"')[1:]]
        assert "".join(said) == "one two three four five"
        assert kept[0].rescued == ("continue",)

    async def test_an_error_event_in_mid_stream_moves_on(self, ai: AsyncOpenAI, sluice: Running) -> None:
        kept = records(sluice)
        stream = await ai.chat.completions.create(
            model="anthropic/claude-ssemid:2",
            messages=_said("SAY one two three"),
            stream=True,
            extra_body={"models": ["anthropic/other"]},
        )
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "one two three"
        assert kept[0].attempts[0].result == "overloaded"

    async def test_an_older_version_takes_sampling(self, up: Upstream, start: Start) -> None:
        async with start(_env(up, "ANTHROPIC_VERSION=2023-06-01\nANTHROPIC_MAX_TOKENS=99\n")) as sluice:
            await sluice.chat("auto", temperature=0.5, top_p=0.9)
        assert up.log[0].headers["anthropic-version"] == "2023-06-01"
        assert (up.log[0].body["temperature"], up.log[0].body["max_tokens"]) == (0.5, 99)

    async def test_what_it_cannot_do_is_said(self, sluice: Running, up: Upstream) -> None:
        answer = await sluice.chat("auto", n=2)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
        assert up.log == []


class TestOwnCallers:
    async def test_their_own_words_arrive(self, claude: AsyncAnthropic, up: Upstream, sluice: Running) -> None:
        kept = records(sluice)
        system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
        answer = await claude.messages.create(
            model="auto", max_tokens=50, system=system, tools=tools, messages=_said("SAY hello"),
            extra_headers={"anthropic-beta": "some-beta"},
        )  # fmt: skip
        assert [block.type for block in answer.content] == ["server_tool_use", "text"]
        assert answer.id == "msg_scripted"
        body = up.log[0].body
        assert (body["system"], body["tools"], body["model"]) == (system, tools, "claude-large")
        assert up.log[0].headers["anthropic-beta"] == "some-beta"
        assert (kept[0].endpoint, kept[0].chars) == ("messages", 5)

    async def test_streams_are_relayed(self, claude: AsyncAnthropic) -> None:
        tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
        async with claude.messages.stream(
            model="auto", max_tokens=50, tools=tools, messages=_said("REASON so it is")
        ) as stream:
            final = await stream.get_final_message()
        assert [block.type for block in final.content] == ["server_tool_use", "thinking", "text"]
        assert final.content[1].type == "thinking"
        assert final.content[1].signature == signature("so it is")
        assert (final.id, final.usage.output_tokens) == ("msg_scripted", 9)

    async def test_thinking_goes_back_as_it_came_and_a_strangers_is_left_out(
        self, claude: AsyncAnthropic, up: Upstream
    ) -> None:
        first = await claude.messages.create(model="auto", max_tokens=50, messages=_said("REASON so it is"))
        stranger = {"type": "thinking", "thinking": "elsewhere", "signature": ""}
        said: Any = [
            *_said("x"),
            {"role": "assistant", "content": [stranger, *first.content]},
            *_said("SAY on"),
        ]
        await claude.messages.create(model="auto", max_tokens=50, messages=said)
        blocks = up.log[-1].body["messages"][1]["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"]
        assert blocks[0]["thinking"] == "so it is"

    async def test_a_relayed_stream_that_breaks_is_gone_on_with_as_a_chat(self, up: Upstream, start: Start) -> None:
        text = _env(up, f"BACKENDS__PRE__BASE_URL={up.url}\nBACKENDS__PRE__PREFILL=true\nIDLE_TIMEOUT_S=0.3\n")
        async with start(text) as sluice:
            kept = records(sluice)
            root = sluice.url.removesuffix("/v1")
            async with (
                AsyncAnthropic(base_url=root, api_key="any", max_retries=0) as claude,
                claude.messages.stream(
                    model="anthropic/claude-stall:3",
                    max_tokens=50,
                    messages=_said("SAY one two three four five"),
                    extra_body={"models": ["pre/b-prefill"]},
                ) as stream,
            ):
                final = await stream.get_final_message()
        assert [block.text for block in final.content if block.type == "text"] == ["one two three four five"]
        assert (final.stop_reason, kept[0].rescued) == ("end_turn", ("continue",))

    async def test_what_only_it_can_do_is_refused_elsewhere(self, up: Upstream, start: Start) -> None:
        async with start(_env(up), up=up) as sluice:
            tools = [{"type": "web_search_20250305", "name": "web_search"}]
            body = {"model": "up/m", "max_tokens": 5, "messages": _said("hi"), "tools": tools}
            answer = await sluice.client.post("/v1/messages", json=body)
            assert (answer.status_code, answer.json()["error"]["details"]["param"]) == (400, "tools")
            assert "server_tools" in answer.json()["error"]["message"]
            body["models"] = ["anthropic/claude-large"]
            assert (await sluice.client.post("/v1/messages", json=body)).status_code == 200
        assert [attempt.path for attempt in up.log] == ["/v1/messages"]

    async def test_tokens_are_counted_where_they_can_be(self, claude: AsyncAnthropic, up: Upstream) -> None:
        system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        told = await claude.messages.count_tokens(model="auto", system=system, messages=_said("one two three"))
        assert told.input_tokens == 5
        assert up.log[0].body == {"model": "claude-large", "system": system, "messages": _said("one two three")}
        estimated = await claude.messages.count_tokens(model="anthropic/claude-503", messages=_said("one two three"))
        assert estimated.model_extra == {"estimated": True}

    async def test_errors_in_mid_stream(self, claude: AsyncAnthropic) -> None:
        async def read() -> None:
            async with claude.messages.stream(
                model="anthropic/claude-ssemid:2", max_tokens=5, messages=_said("SAY one two three")
            ) as stream:
                await stream.until_done()

        with pytest.raises(anthropic.APIStatusError) as caught:
            await read()
        assert (caught.value.type, caught.value.api_message) == ("overloaded_error", "Overloaded")
