"""``/v1/completions`` with the real openai package, in front of chats and of backends that have the wire themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.test_dispatch import records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Running, Start
    from tests.upstream import Upstream


@pytest.fixture
async def sluice(up: Upstream, start: Start) -> AsyncIterator[Running]:
    """A gateway with a backend of which nobody knows more than the chat, ``up``, and one that has the wire, ``own``."""
    text = f"BACKENDS__OWN__BASE_URL={up.url}\nBACKENDS__OWN__WIRES=completions\nMODEL_LARGE=up/large\n"
    async with start(text, up=up) as found:
        yield found


@pytest.fixture
async def ai(sluice: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url, api_key="any", max_retries=0) as client:
        yield client


async def test_a_prompt_is_a_chat(ai: AsyncOpenAI, up: Upstream, sluice: Running) -> None:
    kept = records(sluice)
    answer = await ai.completions.create(model="auto", prompt="SAY hello world", max_tokens=9, temperature=0.1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("hello world", "stop")
    assert (answer.object, answer.model) == ("text_completion", "large")
    assert answer.usage
    assert answer.usage.completion_tokens == 2
    assert up.log[0].path == "/v1/chat/completions"
    assert up.log[0].body["messages"] == [{"role": "user", "content": "SAY hello world"}]
    assert kept[0].endpoint == "completions"


async def test_where_the_wire_is_the_prompt_goes_as_it_is(ai: AsyncOpenAI, up: Upstream) -> None:
    for stream in (False, True):
        told: Any = await ai.completions.create(
            model="own/m", prompt="SAY hello world", suffix="END", stream=stream, extra_body={"min_p": 0.1}
        )
        text = "".join([c.choices[0].text async for c in told]) if stream else told.choices[0].text
        assert text == "hello world"
        sent = up.log[-1]
        assert (sent.path, sent.body["prompt"], sent.body["suffix"]) == ("/v1/completions", "SAY hello world", "END")
        assert sent.body["min_p"] == 0.1


@pytest.mark.parametrize("model", ["up/m", "own/m"])
async def test_streams_echo_and_several_answers(ai: AsyncOpenAI, model: str) -> None:
    stream = await ai.completions.create(
        model=model, prompt="SAY a b", stream=True, echo=True, n=2, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = ["", ""]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.text
    assert texts == ["SAY a ba b"] * 2
    assert chunks[-1].usage
    assert chunks[-1].choices == []


async def test_lists_of_prompts_are_numbered_through(ai: AsyncOpenAI, up: Upstream, sluice: Running) -> None:
    kept = records(sluice)
    answer = await ai.completions.create(model="up/m", prompt=["SAY a", "SAY b c", "SAY d"], n=2, echo=True)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices] == ["SAY aa"] * 2 + ["SAY b cb c"] * 2 + ["SAY dd"] * 2
    assert answer.usage
    assert answer.usage.completion_tokens == 4
    assert len(kept[0].attempts) == len(up.log) == 3
    stream = await ai.completions.create(model="up/m", prompt=["SAY a", "SAY b"], stream=True)
    told = [(choice.index, choice.text) async for chunk in stream for choice in chunk.choices if choice.text]
    assert told == [(0, "a"), (1, "b")]


async def test_one_prompt_of_a_list_that_fails_fails_the_call(ai: AsyncOpenAI, up: Upstream) -> None:
    up.script("m", ["ok", "400", "ok"])
    with pytest.raises(openai.BadRequestError):
        await ai.completions.create(model="up/m", prompt=["SAY a", "SAY b", "SAY c"])


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 99}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 7]}, "prompt[1]"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_a_chat_cannot_do_is_refused(
    sluice: Running, up: Upstream, more: dict[str, Any], param: str
) -> None:
    answer = await sluice.client.post("/v1/completions", json={"model": "up/m", "prompt": "x", **more})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert up.log == []


@pytest.mark.parametrize("model", ["up/m-cut:2", "own/m-cut:2"])
async def test_a_stream_that_breaks_is_restarted_elsewhere(ai: AsyncOpenAI, sluice: Running, model: str) -> None:
    kept = records(sluice)
    stream = await ai.completions.create(
        model=model, prompt="SAY one two three four", stream=True, extra_body={"models": ["up/b"]}
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "one two three four"
    assert kept[0].rescued == ("restart",)


async def test_a_stream_that_cannot_be_saved_is_an_api_error(ai: AsyncOpenAI) -> None:
    stream = await ai.completions.create(model="own/m-ssemid:1", prompt="SAY a b c", stream=True, suffix="x")
    with pytest.raises(openai.APIError) as caught:
        _ = [chunk async for chunk in stream]
    assert caught.value.message


async def test_log_probabilities_are_told_in_the_older_form(ai: AsyncOpenAI, up: Upstream) -> None:
    await ai.completions.create(model="up/m", prompt="SAY a", logprobs=2)
    assert (up.log[0].body["logprobs"], up.log[0].body["top_logprobs"]) == (True, 2)
