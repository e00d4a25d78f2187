"""The real anthropic package against the gateway, over real sockets, whatever the backend speaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.test_dispatch import records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_TOOLS: list[Any] = [
    {
        "name": "weather",
        "description": "Tell the weather.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


def _said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def client(sluice: Running, key: str = "client-key") -> AsyncAnthropic:
    return AsyncAnthropic(base_url=sluice.url.removesuffix("/v1"), api_key=key, max_retries=0)


@pytest.fixture
async def ai(sluice: Running) -> AsyncIterator[AsyncAnthropic]:
    async with client(sluice) as found:
        yield found


async def test_plain(ai: AsyncAnthropic, up: Upstream, sluice: Running) -> None:
    kept = records(sluice)
    answer = await ai.messages.create(
        model="auto", max_tokens=50, system="Be brief.", messages=_said("SAY hello world"), stop_sequences=["xx"]
    )
    assert [block.text for block in answer.content if block.type == "text"] == ["hello world"]
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", "large", "assistant")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)
    body = up.log[0].body
    assert (body["max_tokens"], body["stop"], body["messages"][0]) == (
        50,
        ["xx"],
        {"role": "system", "content": "Be brief."},
    )
    assert (kept[0].endpoint, kept[0].outcome) == ("messages", "ok")
    assert answer._request_id


async def test_stream(ai: AsyncAnthropic) -> None:
    async with ai.messages.stream(model="auto", max_tokens=50, messages=_said("SAY hello big world")) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == "hello big world"
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 4, 3)


async def test_thinking(ai: AsyncAnthropic) -> None:
    plain = await ai.messages.create(model="auto", max_tokens=50, messages=_said("REASON because of that"))
    async with ai.messages.stream(model="auto", max_tokens=50, messages=_said("REASON because of that")) as stream:
        streamed = await stream.get_final_message()
    for answer in (plain, streamed):
        assert [block.type for block in answer.content] == ["thinking", "text"]
        assert answer.content[0].type == "thinking"
        assert answer.content[0].thinking == "because of that"


async def test_tools_round_trip(ai: AsyncAnthropic, up: Upstream) -> None:
    said = _said('CALL weather {"city": "Paris"}\nCALL weather {"city": "Rome"}')
    plain = await ai.messages.create(
        model="auto", max_tokens=50, messages=said, tools=_TOOLS, tool_choice={"type": "any"}
    )
    async with ai.messages.stream(model="auto", max_tokens=50, messages=said, tools=_TOOLS) as stream:
        streamed = await stream.get_final_message()
    for answer in (plain, streamed):
        assert [block.input for block in answer.content if block.type == "tool_use"] == [
            {"city": "Paris"},
            {"city": "Rome"},
        ]
        assert answer.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": "call_0", "content": "20 C"},
        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "no"}], "is_error": True},
        {"type": "text", "text": "and so?"},
    ]
    said += [{"role": "assistant", "content": plain.content}, {"role": "user", "content": results}]
    await ai.messages.create(model="auto", max_tokens=50, messages=said, tools=_TOOLS)
    messages = up.log[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [message["content"] for message in messages[2:]] == ["20 C", "Error: no", "and so?"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_0", "call_1"]
    assert up.log[0].body["tool_choice"] == "required"


async def test_an_answer_cut_short_says_so(ai: AsyncAnthropic) -> None:
    answer = await ai.messages.create(model="auto", max_tokens=3, messages=_said("SAY a b c d e f"))
    assert answer.stop_reason == "max_tokens"


async def test_a_stream_that_breaks_is_rescued(up: Upstream, start: Start) -> None:
    async with start(f"BACKENDS__PRE__BASE_URL={up.url}\nBACKENDS__PRE__PREFILL=true\n", up=up) as sluice:
        kept = records(sluice)
        async with (
            client(sluice) as ai,
            ai.messages.stream(
                model="pre/m-prefill-cut:3:x1", max_tokens=50, messages=_said("SAY one two three four five")
            ) as stream,
        ):
            final = await stream.get_final_message()
    assert final.content[0].type == "text"
    assert final.content[0].text == "one two three four five"
    assert kept[0].rescued == ("continue",)


@pytest.mark.parametrize("fault", ["ssemid", "cuteof", "cut", "cutrst"])
async def test_a_stream_that_cannot_be_saved_is_an_api_error(ai: AsyncAnthropic, fault: str) -> None:
    async def read() -> None:
        async with ai.messages.stream(
            model=f"up/m-{fault}:1", max_tokens=50, messages=_said("CALL weather {}"), tools=_TOOLS
        ) as stream:
            await stream.until_done()

    with pytest.raises(anthropic.APIStatusError) as caught:
        await read()
    assert caught.value.api_message
    assert caught.value.type in {"api_error", "invalid_request_error"}


_ERRORS = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (529, anthropic.APIStatusError, "overloaded_error"),
]


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_are_anthropics(ai: AsyncAnthropic, *, stream: bool) -> None:
    async def check(status: int, kind: type[anthropic.APIStatusError], named: str) -> None:
        with pytest.raises(kind) as caught:
            await ai.messages.create(model=f"up/m-{status}", max_tokens=5, messages=_said("hi"), stream=stream)
        assert (caught.value.status_code, caught.value.type) == (status, named)
        assert caught.value.request_id
        assert caught.value.response.headers["x-should-retry"] == "false"

    await asyncio.gather(*(check(*each) for each in _ERRORS))


async def test_a_wrong_key_is_an_authentication_error(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nAPI_KEYS=good-key\n", up=up) as sluice:
        async with client(sluice, "bad-key") as ai:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await ai.messages.create(model="auto", max_tokens=5, messages=_said("hi"))
            assert caught.value.error_code == "invalid_api_key"
        async with client(sluice, "good-key") as ai:
            await ai.messages.create(model="auto", max_tokens=5, messages=_said("hi"))
        assert "good-key" not in str(up.log[0].headers)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"system": 7}, "system"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"metadata": 7}, "metadata"),
    ],
)
async def test_bad_bodies_are_refused_by_path(sluice: Running, up: Upstream, body: dict[str, Any], path: str) -> None:
    sent = {"model": "up/m", "max_tokens": 5, "messages": _said("hi")} | body
    answer = await sluice.client.post("/v1/messages", json=sent)
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert f"'{path}'" in answer.json()["error"]["message"]
    assert up.log == []


async def test_silence_is_filled_with_pings(sluice: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import partial

    from app.api import respond

    monkeypatch.setattr(respond, "SSEWriter", partial(respond.SSEWriter, keep_alive_s=0.05))
    body = {"model": "up/m-late:0.3", "max_tokens": 5, "messages": _said("hi"), "stream": True}
    answer = await sluice.client.post("/v1/messages", json=body)
    assert answer.text.startswith('event: ping\ndata: {"type":"ping"}\n\n')
    assert answer.text.rstrip().endswith('{"type":"message_stop"}')


async def test_tokens_are_estimated_where_nobody_counts_them(ai: AsyncAnthropic, up: Upstream) -> None:
    few = await ai.messages.count_tokens(model="auto", messages=_said("hello"))
    many = await ai.messages.count_tokens(model="auto", messages=_said("hello " * 500), tools=_TOOLS)
    assert few.input_tokens < 20
    assert many.input_tokens > 400
    assert few.model_extra == {"estimated": True}
    assert up.log == []
    with pytest.raises(anthropic.BadRequestError):
        await ai.messages.count_tokens(model="auto", messages=[])
