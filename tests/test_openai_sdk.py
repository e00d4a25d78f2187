"""The real openai package against the gateway, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.conftest import Running, Start
from tests.upstream import Upstream

_TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]


def _said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture
async def ai(sluice: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url, api_key="client-key") as client:
        yield client


def _everything(url: str) -> list[Any]:
    """Call all there is with the synchronous client."""
    with OpenAI(base_url=url, api_key="client-key") as client:
        plain = client.chat.completions.create(model="auto", messages=_said("SAY one two"))
        stream = client.chat.completions.create(model="auto", messages=_said("SAY one two"), stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        tools = client.chat.completions.create(model="auto", messages=_said('CALL weather {"city": "x"}'), tools=_TOOLS)
        vector = client.embeddings.create(model="up/embedding", input="hello")
        models = [model.id for model in client.models.list() if not model.id.startswith(("task/", "pipeline/"))]
        return [plain.choices[0].message.content, text, tools, vector, models]


async def test_sync_client(sluice: Running) -> None:
    plain, text, tools, vector, models = await asyncio.to_thread(_everything, sluice.url)
    assert plain == text == "one two"
    assert tools.choices[0].message.tool_calls[0].function.arguments == '{"city": "x"}'
    assert len(vector.data[0].embedding) == 16
    assert models == ["auto", "large", "judge", "up/large"]


async def test_plain(ai: AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(model="auto", messages=_said("SAY hello world"))
    assert answer.choices[0].message.content == "hello world"
    assert answer.model == "large"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert answer._request_id


async def test_stream_without_usage_has_a_choice_in_every_chunk(ai: AsyncOpenAI, up: Upstream) -> None:
    chunks = [chunk async for chunk in await _stream(ai, "SAY hello world")]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello world"
    assert all(chunk.choices and not chunk.usage for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert up.log[0].body["stream_options"] == {"include_usage": True}


async def _stream(ai: AsyncOpenAI, text: str, model: str = "auto", **more: Any) -> Any:
    return await ai.chat.completions.create(model=model, messages=_said(text), stream=True, **more)


async def test_stream_with_usage_ends_in_one_usage_chunk(ai: AsyncOpenAI) -> None:
    stream = await _stream(ai, "SAY hello world", stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 2


async def test_tools_plain_and_streamed(ai: AsyncOpenAI) -> None:
    said = _said('CALL weather {"city": "Paris"}')
    plain = await ai.chat.completions.create(model="auto", messages=said, tools=_TOOLS, tool_choice="required")
    assert plain.choices[0].finish_reason == "tool_calls"
    async with ai.chat.completions.stream(model="auto", messages=said, tools=_TOOLS) as stream:
        streamed = await stream.get_final_completion()
    for answer in (plain.choices[0].message, streamed.choices[0].message):
        assert answer.tool_calls
        call: Any = answer.tool_calls[0]
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')


async def test_a_thought_signature_makes_the_round_trip(ai: AsyncOpenAI, up: Upstream) -> None:
    said = _said("CALL weather {}")
    first = await ai.chat.completions.create(model="up/m-thought", messages=said, tools=_TOOLS)
    message = first.choices[0].message.model_dump(exclude_none=True)
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2lnbmVk"}}
    said += [message, {"role": "tool", "tool_call_id": "call_0", "content": "20 C"}]
    await ai.chat.completions.create(model="up/m-thought", messages=said, tools=_TOOLS)
    assert up.log[1].body["messages"][1]["tool_calls"][0]["extra_content"]["google"]["thought_signature"] == "c2lnbmVk"
    stream = await _stream(ai, "CALL weather {}", "up/m-thought", tools=_TOOLS)
    calls = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].extra_content["google"]["thought_signature"] == "c2lnbmVk"


class Person(BaseModel):
    name: str
    age: int


async def test_parse_with_a_pydantic_model(ai: AsyncOpenAI, up: Upstream) -> None:
    answer = await ai.chat.completions.parse(model="auto", messages=_said("who?"), response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="text", age=1)
    assert up.log[0].body["response_format"]["json_schema"]["strict"] is True
    assert up.log[0].body["stream"] is False


async def test_embeddings_in_both_encodings(ai: AsyncOpenAI, up: Upstream) -> None:
    coded = await ai.embeddings.create(model="up/embedding", input=["hello", "world"])
    floats = await ai.embeddings.create(model="up/embedding", input=["hello", "world"], encoding_format="float")
    tokens = await ai.embeddings.create(model="up/embedding", input=[[1, 2], [3]], dimensions=4)
    assert [attempt.body.get("encoding_format") for attempt in up.log] == ["base64", "float", "base64"]
    assert coded.data[1].embedding == pytest.approx(floats.data[1].embedding)
    assert [len(each.embedding) for each in tokens.data] == [4, 4]


async def test_models_with_slashes(ai: AsyncOpenAI) -> None:
    listed = [model.id async for model in ai.models.list()]
    assert [each for each in listed if not each.startswith(("task/", "pipeline/"))] == [
        "auto",
        "large",
        "judge",
        "up/large",
    ]
    assert "task/creative" in listed
    assert (await ai.models.retrieve("up/large")).owned_by == "up"
    with pytest.raises(openai.NotFoundError) as caught:
        await ai.models.retrieve("up/none/such:1")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


_CLASSES = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (402, openai.APIStatusError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (408, openai.APIStatusError),
    (409, openai.ConflictError),
    (413, openai.APIStatusError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (502, openai.InternalServerError),
    (503, openai.InternalServerError),
    (504, openai.InternalServerError),
    (529, openai.InternalServerError),
]


async def _refused(ai: AsyncOpenAI, model: str, *, stream: bool = False) -> openai.APIError:
    """Make a call that must fail and return its error."""
    with pytest.raises(openai.APIError) as caught:
        await ai.chat.completions.create(model=model, messages=_said("hi"), stream=stream)
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
async def test_error_classes(ai: AsyncOpenAI, up: Upstream, *, stream: bool) -> None:
    errors = await asyncio.gather(*(_refused(ai, f"up/m-{status}", stream=stream) for status, _ in _CLASSES))
    for (status, kind), error in zip(_CLASSES, errors, strict=True):
        assert isinstance(error, openai.APIStatusError)
        assert (error.status_code, type(error)) == (status, kind)
        assert error.request_id
        body: Any = error.body
        assert set(body) == {"message", "type", "param", "code"}, status
        assert body["message"] in error.message
        assert isinstance(body["code"], str | None), status
        assert error.response.headers["x-should-retry"] == "false", status
        assert len(up.of(f"m-{status}")) <= 3, status


_TOLD = [
    ("orerr:502", 502, "Provider returned error"),
    ("orerr:429", 429, "Provider returned error"),
    ("gemerr:429", 429, "You exceeded your current quota."),
    ("cferr:429", 429, "AiError: capacity temporarily exceeded, please try again."),
    ("ollerr:500", 500, "llama runner process has terminated"),
    ("dtlerr:422", 422, "Field required"),
    ("htmlerr:502", 502, "502 Bad Gateway"),
    ("txterr:500", 500, "upstream connect error"),
    ("400ctx", 400, "This model's maximum context length is 4096 tokens."),
    ("empty", 502, "something not JSON"),
    ("badjson", 502, "something not JSON"),
]


async def test_every_backends_errors_reach_the_client_with_their_message(ai: AsyncOpenAI) -> None:
    errors = await asyncio.gather(*(_refused(ai, f"up/m-{fault}") for fault, _, _ in _TOLD))
    for (fault, status, message), error in zip(_TOLD, errors, strict=True):
        assert isinstance(error, openai.APIStatusError), fault
        assert (fault, error.status_code) == (fault, status)
        assert message in error.message
        assert error.code is None or isinstance(error.code, str), fault


@pytest.mark.parametrize("stream", [False, True])
async def test_one_call_of_a_client_is_a_bounded_number_of_requests(
    ai: AsyncOpenAI, up: Upstream, *, stream: bool
) -> None:
    faults = ("429", "500", "503", "529", "rst", "close", "408", "409")
    await asyncio.gather(*(_refused(ai, f"up/m-{fault}", stream=stream) for fault in faults))
    for fault in faults:
        assert 1 <= len(up.of(f"m-{fault}")) <= 3, fault  # one and RETRIES=2, not the client's own times that


@pytest.mark.parametrize("fault", ["ssemid", "ormid", "groqmid", "ollmid", "cuteof", "cut", "cutrst", "ollsilent"])
async def test_a_stream_that_breaks_is_an_api_error_with_a_message(ai: AsyncOpenAI, up: Upstream, fault: str) -> None:
    stream = await _stream(ai, "CALL weather {}", f"up/m-{fault}:1", tools=_TOOLS)  # no rescue of tool calls
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert not isinstance(caught.value, openai.APIConnectionError)
    body: Any = caught.value.body
    assert body["message"]
    assert caught.value.message
    assert body["code"] is None or isinstance(body["code"], str)
    assert len(up.log) == 1


async def test_a_wrong_key_is_an_authentication_error(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nAPI_KEYS=good-key\n", up=up) as sluice:
        async with AsyncOpenAI(base_url=sluice.url, api_key="bad-key") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.models.list()
            assert caught.value.code == "invalid_api_key"
        async with AsyncOpenAI(base_url=sluice.url, api_key="good-key") as client:
            await client.chat.completions.create(model="auto", messages=_said("hi"))
        assert "authorization" not in up.log[0].headers
        assert "good-key" not in str(up.log[0].headers)


async def test_without_v1_in_the_base_url(sluice: Running) -> None:
    async with AsyncOpenAI(base_url=sluice.url.removesuffix("/v1"), api_key="any") as client:
        await client.chat.completions.create(model="auto", messages=_said("hi"))
        assert (await client.models.retrieve("up/large")).id == "up/large"


async def test_the_clients_read_timeout_is_the_deadline(sluice: Running) -> None:
    async with AsyncOpenAI(base_url=sluice.url, api_key="any", timeout=30) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model="up/m-hang", messages=_said("hi"), extra_headers={"x-stainless-read-timeout": "0.3"}
            )
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
