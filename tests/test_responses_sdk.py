"""The real openai package's Responses against the gateway, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.test_dispatch import records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
]


@pytest.fixture
async def ai(sluice: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url, api_key="client-key", max_retries=0) as client:
        yield client


class Person(BaseModel):
    name: str
    age: int


async def test_plain(ai: AsyncOpenAI, up: Upstream, sluice: Running) -> None:
    kept = records(sluice)
    answer = await ai.responses.create(
        model="auto", input="SAY hello world", instructions="Be brief.", max_output_tokens=50, metadata={"a": "b"}
    )
    assert answer.output_text == "hello world"
    assert (answer.status, answer.model, answer.instructions) == ("completed", "large", "Be brief.")
    assert answer.usage
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)
    assert [message["role"] for message in up.log[0].body["messages"]] == ["system", "user"]
    assert up.log[0].body["max_tokens"] == 50
    assert (kept[0].endpoint, kept[0].outcome, str(kept[0].target)) == ("responses", "ok", "up/large")


async def test_stream(ai: AsyncOpenAI) -> None:
    async with ai.responses.stream(model="auto", input="SAY hello big world") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == final.output_text == "hello big world"
    assert final.usage
    assert final.usage.output_tokens == 3


async def test_reasoning_and_its_summary(ai: AsyncOpenAI) -> None:
    raw = await ai.responses.create(model="auto", input="REASON because of that")
    assert raw.output[0].type == "reasoning"
    assert raw.output[0].content
    assert raw.output[0].content[0].text == "because of that"
    async with ai.responses.stream(
        model="auto", input="REASON because of that", reasoning={"summary": "auto"}
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert "response.reasoning_summary_text.delta" in kinds
    assert final.output[0].type == "reasoning"
    assert final.output[0].summary[0].text == "because of that"


async def test_tools_round_trip(ai: AsyncOpenAI, up: Upstream) -> None:
    said: list[Any] = [{"role": "user", "content": 'CALL weather {"city": "Paris"}\nCALL weather {"city": "Rome"}'}]
    plain = await ai.responses.create(model="auto", input=said, tools=_TOOLS, tool_choice="required")
    async with ai.responses.stream(model="auto", input=said, tools=_TOOLS) as stream:
        async for _ in stream:
            pass
        streamed = await stream.get_final_response()
    for answer in (plain, streamed):
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [call.arguments for call in calls] == ['{"city": "Paris"}', '{"city": "Rome"}']
    said += [item.model_dump(exclude_none=True) for item in plain.output]
    said += [{"type": "function_call_output", "call_id": f"call_{n}", "output": text} for n, text in enumerate("ab")]
    final = await ai.responses.create(model="auto", input=said, tools=_TOOLS)
    assert final.output_text == "The tool said: b"
    messages = up.log[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_0", "call_1"]


async def test_parse(ai: AsyncOpenAI, up: Upstream) -> None:
    answer = await ai.responses.parse(model="auto", input="who?", text_format=Person)
    assert answer.output_parsed == Person(name="text", age=1)
    assert up.log[0].body["response_format"]["json_schema"]["strict"] is True
    async with ai.responses.stream(model="auto", input="who?", text_format=Person) as stream:
        assert (await stream.get_final_response()).output_parsed == Person(name="text", age=1)


async def test_an_answer_that_is_cut_short_is_incomplete(ai: AsyncOpenAI) -> None:
    answer = await ai.responses.create(model="auto", input="SAY a b c d e f", max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"
    kinds = [event.type async for event in await ai.responses.create(
        model="auto", input="SAY a b c d e f", max_output_tokens=3, stream=True)]  # fmt: skip
    assert kinds[-1] == "response.incomplete"


async def test_a_stream_that_breaks_is_rescued(up: Upstream, start: Start) -> None:
    async with (
        start(f"BACKENDS__PRE__BASE_URL={up.url}\nBACKENDS__PRE__PREFILL=true\n", up=up) as sluice,
        AsyncOpenAI(base_url=sluice.url, api_key="any", max_retries=0) as ai,
    ):
        kept = records(sluice)
        async with ai.responses.stream(model="pre/m-prefill-cut:3:x1", input="SAY one two three four five") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "one two three four five"
        assert kept[0].rescued == ("continue",)


@pytest.mark.parametrize("fault", ["ssemid", "cuteof", "cut", "cutrst"])
async def test_a_stream_that_cannot_be_saved_is_an_api_error(ai: AsyncOpenAI, fault: str) -> None:
    stream = await ai.responses.create(model=f"up/m-{fault}:1", input="CALL weather {}", tools=_TOOLS, stream=True)
    kinds: list[str] = []

    async def read() -> None:
        async for event in stream:
            kinds.append(event.type)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert kinds[-1] == "response.failed"
    assert caught.value.message


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_are_openais(ai: AsyncOpenAI, *, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await ai.responses.create(model="up/m-429", input="hi", stream=stream)
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call", "name": "f", "call_id": "c"}]}, "input[0].arguments"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
    ],
)
async def test_bad_bodies_are_refused_by_path(sluice: Running, up: Upstream, body: dict[str, Any], param: str) -> None:
    answer = await sluice.client.post("/v1/responses", json={"model": "up/m", **body})
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["param"] == param
    assert up.log == []
