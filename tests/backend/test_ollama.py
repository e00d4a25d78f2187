"""Ollama from the front door: its native wire, its timings, its models, its silent ways."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import openai
import orjson
import pytest

from app.backend.ollama_api import Lines, duration, seconds
from app.backend.ollama_body import Story, completion, native
from app.config import OllamaOptions
from app.errors import BackendError

if TYPE_CHECKING:
    import httpx

    from tests.conftest import Start
    from tests.upstream import Upstream

NATIVE = """OLLAMA_BASE_URL={url}
OLLAMA_NATIVE=true
MODEL_CODE=ollama/qwen,up/other
MODEL_LARGE=ollama/qwen
ON_WEAK=serve
"""


def settings(up: Upstream, text: str = NATIVE) -> str:
    return text.format(url=up.url)


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


class TestNative:
    async def test_a_plain_answer_and_what_was_asked(self, up: Upstream, start: Start) -> None:
        async with start(settings(up) + "OLLAMA_NUM_CTX=16384\nOLLAMA_KEEP_ALIVE=30m\n", up=up) as sluice:
            answer = await sluice.chat(
                "ollama/qwen", "SAY hi", max_completion_tokens=50, temperature=0.5, stop="END", seed=7, extra_field=[1]
            )
            body = answer.json()
            assert body["choices"][0]["message"]["content"] == "hi"
            assert body["choices"][0]["finish_reason"] == "stop"
            assert body["usage"]["completion_tokens"] == 1
            load, asked = up.log[-2:]
            assert (load.path, load.body["keep_alive"]) == ("/api/generate", "30m")
            assert asked.path == "/api/chat"
            wanted = {"num_ctx": 16384, "num_predict": 50, "temperature": 0.5, "stop": ["END"], "seed": 7}
            assert asked.body["options"] == wanted
            assert asked.body["extra_field"] == [1]
            assert asked.body["keep_alive"] == "30m"

    async def test_a_model_is_loaded_once_while_it_is_used(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            for _ in range(3):
                await sluice.chat("ollama/qwen", "SAY hi")
            assert [each.path for each in up.log].count("/api/generate") == 1

    async def test_loading_does_not_count_as_silence(self, up: Upstream, start: Start) -> None:
        async with start(settings(up) + "FIRST_CONTENT_TIMEOUT_S=0.3\n", up=up) as sluice:
            up.script("qwen", ["slow:0.6", "ok"])
            answer = await sluice.chat("code", "SAY hi", stream=True)
            assert answer.headers["x-sluice-target"] == "ollama/qwen"

    async def test_a_stream_is_told_in_openai_s_events(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            client = openai.AsyncOpenAI(base_url=sluice.url, api_key="any")
            stream = await client.chat.completions.create(
                model="ollama/qwen",
                messages=[{"role": "user", "content": "SCRIPT " + '{"reason": "well then", "say": "a b c"}'}],
                stream=True,
                stream_options={"include_usage": True},
            )
            got = [chunk async for chunk in stream]
            await client.close()
            assert len({chunk.id for chunk in got}) == 1
            assert got[0].choices[0].delta.role == "assistant"
            assert "".join(c.choices[0].delta.content or "" for c in got if c.choices) == "a b c"
            assert (
                "".join(getattr(c.choices[0].delta, "reasoning_content", "") for c in got if c.choices) == "well then"
            )
            assert [c.choices[0].finish_reason for c in got if c.choices][-1] == "stop"
            assert got[-1].usage is not None
            assert got[-1].usage.completion_tokens == 5

    @pytest.mark.parametrize("stream", [False, True])
    async def test_tools_both_ways(self, up: Upstream, start: Start, stream: bool) -> None:
        tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
        async with start(settings(up), up=up) as sluice:
            answer = await sluice.chat("ollama/qwen", 'CALL add {"a": 1}', tools=tools, stream=stream)
            if stream:
                told = [c["choices"][0] for c in chunks(answer) if c["choices"]]
                (call,) = [call for each in told for call in each["delta"].get("tool_calls", ())]
                assert told[-1]["finish_reason"] == "tool_calls"
            else:
                (choice,) = answer.json()["choices"]
                (call,) = choice["message"]["tool_calls"]
                assert choice["finish_reason"] == "tool_calls"
            assert call["function"]["name"] == "add"
            assert orjson.loads(call["function"]["arguments"]) == {"a": 1}

    async def test_nanoseconds_become_stages(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            up.script("qwen", ["ok", "slow:0.2-pace:40"])
            answer = await sluice.chat(
                "ollama/qwen", "SAY a b c d e", stream=True, headers={"x-sluice-performance": "true"}
            )
            told = next(chunk["performance"] for chunk in chunks(answer) if "performance" in chunk)
            stages = told["stages"]
            assert stages["prompt"] >= 190
            assert stages["decode"] >= 190
            assert sum(stages.values()) == pytest.approx(told["totalMs"], abs=1)

    @pytest.mark.parametrize("fault", ["ollmid:2", "cut:2", "cuteof:2"])
    async def test_a_stream_that_breaks_is_rescued(self, up: Upstream, start: Start, fault: str) -> None:
        async with start(settings(up), up=up) as sluice:
            up.script("qwen", ["ok", fault])
            answer = await sluice.chat("code", "SAY one two three four", stream=True)
            assert "[DONE]" in answer.text
            text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(answer) if c["choices"])
            assert text == "one two three four"

    async def test_an_error_in_mid_stream_is_told_where_nobody_can_save_it(self, up: Upstream, start: Start) -> None:
        async with start(settings(up) + "RETRIES=0\n", up=up) as sluice:
            up.always("qwen", "ollmid:2")
            up.script("qwen", ["ok"])
            answer = await sluice.chat("ollama/qwen", "SAY one two three four", stream=True)
            assert "llama runner process has terminated" in answer.text
            assert "[DONE]" not in answer.text

    async def test_a_missing_model_says_how_to_get_it(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            up.always("qwen", "404")
            answer = await sluice.chat("ollama/qwen", "hi")
            assert answer.status_code == 404
            assert "ollama pull qwen" in answer.json()["error"]["message"]


class TestModels:
    async def test_tags_are_listed_and_cost_no_time(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            up.models = ("qwen", "llama3:8b")
            listed = {each["id"] for each in (await sluice.client.get("/v1/models")).json()["data"]}
            assert {"ollama/llama3:8b", "ollama/qwen:latest"} <= listed
            assert (await sluice.client.get("/v1/models/ollama/llama3:8b")).status_code == 200
            assert [each.path for each in up.log].count("/api/tags") == 1

    async def test_an_ollama_that_says_nothing_holds_nobody_up(self, up: Upstream, start: Start) -> None:
        async with start(settings(up), up=up) as sluice:
            up.always("/api/tags", "hang")
            await sluice.client.get("/nowhere")  # so that the web framework is there
            began = time.monotonic()
            for _ in range(5):
                assert (await sluice.client.get("/v1/models")).status_code == 200
            assert time.monotonic() - began < 1


class Heard(logging.Handler):
    """What was logged; ``caplog`` hears nothing where the gateway sets up its own logging."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


async def test_a_prompt_that_ollama_would_cut_is_warned_of_once(up: Upstream, start: Start) -> None:
    heard = Heard()
    text = settings(up, "OLLAMA_BASE_URL={url}\nMODEL_LARGE=ollama/warned\nON_WEAK=serve\n")
    async with start(text) as sluice:
        logging.getLogger("sluice").addHandler(heard)
        try:
            for _ in range(2):
                assert (await sluice.chat("large", "word " * 5000)).status_code == 200
        finally:
            logging.getLogger("sluice").removeHandler(heard)
    assert len([told for told in heard.told if "OLLAMA_NATIVE=true and OLLAMA_NUM_CTX" in told]) == 1


async def test_the_real_client_gets_along_with_the_scripted_ollama(up: Upstream) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.AsyncClient(host=up.url.removesuffix("/v1"))
    up.models = ()
    steps = [step.completed async for step in await client.pull("qwen", stream=True)]
    assert steps == [1, 2, 3, 4, None]
    assert [each.model for each in (await client.list()).models] == ["qwen:latest"]
    messages = [{"role": "user", "content": "SAY one two three"}]
    whole = await client.chat("qwen", messages, options={"num_ctx": 2048})
    assert (whole.message.content, whole.done, whole.eval_count) == ("one two three", True, 3)
    parts = [part async for part in await client.chat("qwen", messages, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "one two three"
    assert parts[-1].eval_duration > 0
    up.script("qwen", ["ollmid:1"])
    with pytest.raises(ollama.ResponseError, match="terminated"):
        [part async for part in await client.chat("qwen", messages, stream=True)]


class TestBodies:
    def test_messages_with_tools_and_parts(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]
        told = native({"model": "m", "messages": messages}, OllamaOptions())["messages"]
        assert told == [
            {"role": "user", "content": "ab"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "2", "tool_name": "add"},
        ]

    @pytest.mark.parametrize(
        ("asked", "form"),
        [
            ({"type": "json_object"}, "json"),
            ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, {"type": "object"}),
            ({"type": "text"}, None),
        ],
    )
    def test_formats(self, asked: dict[str, Any], form: object) -> None:
        assert native({"messages": [], "response_format": asked}, OllamaOptions()).get("format") == form

    def test_effort(self) -> None:
        assert native({"messages": [], "reasoning_effort": "none"}, OllamaOptions())["think"] is False
        assert native({"messages": [], "reasoning_effort": "high"}, OllamaOptions())["think"] == "high"

    def test_a_cut_by_length_is_one(self) -> None:
        told = {"model": "m", "message": {"content": "x"}, "done": True, "done_reason": "length"}
        assert completion(told)["choices"][0]["finish_reason"] == "length"
        assert Story("id", "m").chunks(told)[1]["choices"][0]["finish_reason"] == "length"

    @pytest.mark.parametrize(
        ("text", "value", "in_s"),
        [("5m", "5m", 300), ("-1", -1, float("inf")), ("90", 90, 90), ("1.5h", "1.5h", 5400), ("250ms", "250ms", 0.25)],
    )
    def test_keep_alive(self, text: str, value: object, in_s: float) -> None:
        assert duration(text) == value
        assert seconds(text) == in_s


class TestLines:
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_cut_anywhere(self, size: int) -> None:
        raw = b'{"a": 1}\n\n{"b": "\xc3\xa9"}\nnonsense\n[1]\n{"c": 3}'
        lines = Lines()
        found = [each for at in range(0, len(raw), size) for each in lines.feed(raw[at : at + size])] + lines.flush()
        assert found == [{"a": 1}, {"b": "é"}, {"c": 3}]
        assert (lines.skipped(), lines.skipped()) == (2, 0)

    def test_bounded(self) -> None:
        with pytest.raises(BackendError, match="line of more than 10"):
            Lines(10).feed(b"x" * 11)
