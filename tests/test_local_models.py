"""Real mlx-lm on tiny models, through the gateway, with the openai package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from tests.conftest import Running, running
from tests.engine import tiny

pytestmark = pytest.mark.asyncio(loop_scope="module")
_TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Paris", "Rome"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                },
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "trains")
]


class Person(BaseModel):
    name: str = Field(max_length=10)
    age: int = Field(ge=0, le=120)
    likes: list[Literal["tea", "coffee"]] = Field(max_length=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {name: tiny.make(base / name, tiny.RECIPES[name]) for name in ("qwen", "short", "embed")}


@pytest.fixture(scope="module")
def names(folders: dict[str, Path]) -> dict[str, str]:
    return {name: f"mlx/{folder}" for name, folder in folders.items()}


@pytest.fixture(scope="module")
def _one_core() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sluice(
    names: dict[str, str], tmp_path_factory: pytest.TempPathFactory, _one_core: None
) -> AsyncIterator[Running]:
    text = (
        f"MODEL_SMALL={names['qwen']}\nMODEL_MEDIUM={names['short']},{names['qwen']}\n"
        f"MODEL_EMBEDDING={names['embed']}\n"
    )
    async with running(tmp_path_factory.mktemp("gateway") / ".env", text) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ai(sluice: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def _said(text: str = "hello there") -> Any:
    return [{"role": "user", "content": text}]


async def _text(ai: AsyncOpenAI, model: str = "small", text: str = "hello there", **more: Any) -> str:
    answer = await ai.chat.completions.create(model=model, messages=_said(text), **more)
    return answer.choices[0].message.content or ""


async def test_plain(ai: AsyncOpenAI, names: dict[str, str], folders: dict[str, Path]) -> None:
    answer = await ai.chat.completions.with_raw_response.create(
        model="auto", messages=_said("hi"), max_tokens=8, logit_bias=tiny.endless(folders["qwen"])
    )
    assert answer.headers["x-sluice-target"] == names["qwen"]
    assert answer.headers["x-sluice-role"] == "small"
    body = answer.parse()
    assert body.usage is not None
    assert (body.usage.completion_tokens, body.choices[0].finish_reason) == (8, "length")
    assert body.choices[0].message.content


async def test_stream_says_what_the_plain_call_says(ai: AsyncOpenAI) -> None:
    plain = await _text(ai, max_tokens=12, temperature=0)
    stream = await ai.chat.completions.create(
        model="small",
        messages=_said(),
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == plain
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "trains"}}])
async def test_tools(ai: AsyncOpenAI, choice: Any) -> None:
    answer = await ai.chat.completions.create(
        model="small", messages=_said("the weather in Paris?"), tools=_TOOLS, tool_choice=choice, seed=4, max_tokens=200
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls
    call: Any = answer.choices[0].message.tool_calls[0]
    assert call.function.name in ({"weather", "trains"} if choice == "required" else {"trains"})
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in {"Paris", "Rome"}
    assert type(arguments["days"]) is int


async def test_parse_gives_the_pydantic_model(ai: AsyncOpenAI) -> None:
    answer = await ai.chat.completions.parse(
        model="small", messages=_said("who?"), response_format=Person, max_tokens=300, seed=4
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


async def test_a_seed_gives_the_same_alone_and_among_others(ai: AsyncOpenAI) -> None:
    seeded: dict[str, Any] = {"seed": 11, "temperature": 1.0, "max_tokens": 16}
    alone = await _text(ai, **seeded)
    others = [_text(ai, text=f"another {number}", temperature=1.0, max_tokens=16) for number in range(6)]
    among, *_ = await asyncio.gather(_text(ai, **seeded), *others)
    assert among == alone
    assert await _text(ai, **{**seeded, "seed": 12}) != alone


async def test_stop(ai: AsyncOpenAI) -> None:
    whole = await _text(ai, max_tokens=24, temperature=0)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    answer = await ai.chat.completions.create(
        model="small", messages=_said(), max_tokens=24, temperature=0, stop=[stop]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == whole[: whole.index(stop)]


async def test_logprobs(ai: AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model="small", messages=_said(), max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert len(content) == 4
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(max(each.logprob for each in token.top_logprobs))


async def test_embeddings_by_role_and_by_name(ai: AsyncOpenAI, names: dict[str, str]) -> None:
    one = await ai.embeddings.create(model="embedding", input=["hello", "world"])
    two = await ai.embeddings.create(model=names["embed"], input="world", encoding_format="float")
    assert one.data[1].embedding == pytest.approx(two.data[0].embedding, abs=1e-5)
    assert sum(x * x for x in two.data[0].embedding) == pytest.approx(1, abs=1e-3)
    with pytest.raises(openai.BadRequestError) as caught:
        await ai.embeddings.create(model=names["qwen"], input="hello")
    assert caught.value.code == "not_an_embedding_model"


async def test_the_second_turn_has_cached_tokens(ai: AsyncOpenAI) -> None:
    messages = _said("tell me of the harbour. " * 20)
    first = await ai.chat.completions.create(model="small", messages=messages, max_tokens=8, temperature=0)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, *_said("and then?")]
    second = await ai.chat.completions.create(model="small", messages=messages, max_tokens=8, temperature=0)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 100


async def test_an_unsupported_parameter_is_a_400_and_is_never_dropped(ai: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await ai.chat.completions.create(model="small", messages=_said(), extra_body={"wibble": 3})
    assert caught.value.param == "wibble"
    assert caught.value.type == "invalid_request_error"


async def test_a_prompt_that_is_too_long_goes_to_the_larger_window_or_is_told(
    ai: AsyncOpenAI, names: dict[str, str]
) -> None:
    text = "one two three " * 300
    answer = await ai.chat.completions.with_raw_response.create(model="medium", messages=_said(text), max_tokens=2)
    assert answer.headers["x-sluice-target"] == names["qwen"]
    assert answer.headers["x-sluice-attempts"] == f"{names['short']}=context_length;{names['qwen']}=ok"
    with pytest.raises(openai.BadRequestError) as caught:
        await ai.chat.completions.create(model=names["short"], messages=_said(text), max_tokens=2)
    assert caught.value.code == "context_length_exceeded"


async def _until(sluice: Running, model: str, *, busy: bool) -> None:
    """Wait until the engine says that calls run on a model, or that none does."""
    async with asyncio.timeout(20):
        while True:
            told = (await sluice.client.get("/admin/models")).json()["models"][model]
            if bool(told.get("running")) is busy:  # nothing is told of what is not loaded yet
                return


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_work(
    sluice: Running, names: dict[str, str], folders: dict[str, Path], *, stream: bool
) -> None:
    body = {"model": "small", "messages": _said(), "max_tokens": 3000, "stream": stream}
    body["logit_bias"] = tiny.endless(folders["qwen"])
    await sluice.client.get("/admin/models")  # the first brings the web framework, which may take longer than the call
    call = asyncio.create_task(sluice.client.post("/v1/chat/completions", json=body))
    await _until(sluice, names["qwen"], busy=True)
    call.cancel()
    await _until(sluice, names["qwen"], busy=False)


async def test_what_no_role_names_is_never_loaded(ai: AsyncOpenAI, sluice: Running, names: dict[str, str]) -> None:
    for name in ("mlx/mlx-community/anything", "mlx//etc"):
        with pytest.raises(openai.NotFoundError) as caught:
            await ai.chat.completions.create(model=name, messages=_said())
        assert (caught.value.code, caught.value.type, caught.value.param) == (
            "model_not_allowed",
            "invalid_request_error",
            "model",
        )
    assert set((await sluice.client.get("/admin/models")).json()["models"]) == set(names.values())


async def test_the_other_wires(ai: AsyncOpenAI, sluice: Running, names: dict[str, str]) -> None:
    """Prompts go to the model as they are; responses and messages are chats in another dress."""
    prompt: Any = {"model": names["qwen"], "max_tokens": 8, "temperature": 0, "logprobs": 2}
    text = await ai.completions.create(prompt="once upon a time", **prompt)
    logprobs: Any = text.choices[0].logprobs
    assert "".join(logprobs.tokens) == text.choices[0].text
    assert text.usage
    assert text.usage.completion_tokens == 8
    tokens = await ai.completions.create(prompt=[5, 6, 7], **prompt)
    assert tokens.usage
    assert tokens.usage.prompt_tokens == 3
    async with ai.responses.stream(model=names["qwen"], input="hello", max_output_tokens=16, temperature=0) as stream:
        async for _ in stream:
            pass
    plain = await ai.responses.create(model=names["qwen"], input="hello", max_output_tokens=16, temperature=0)
    assert (plain.status, plain.usage and plain.usage.output_tokens) == ("incomplete", 16)
    body = {"model": names["qwen"], "max_tokens": 16, "messages": [{"role": "user", "content": "hello"}]}
    message = (await sluice.client.post("/v1/messages", json={**body, "temperature": 0})).json()
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 16)
    assert message["content"][0]["text"] == plain.output_text
