"""The scripted upstream is what other tests trust: its answers keep OpenAI's schema, its faults are what they say."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import openai
import pytest

from tests.upstream import Upstream, faults
from tests.upstream.faults import NAMES, Moment, base_name, parse_name, parse_script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
from tests.plain import PLAIN
from tests.upstream.client import ask, events, everything, post, said, stream

SCHEMAS = json.loads((Path(__file__).parent / "upstream" / "openai_responses.json").read_text())


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def client(up: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=PLAIN, base_url=up.url, timeout=10, trust_env=False) as http:
        yield http


def valid(name: str, value: Any) -> None:
    jsonschema.validate(value, SCHEMAS | {"$ref": f"#/components/schemas/{name}"})


class TestShapes:
    async def test_plain_answers_keep_the_schema(self, client: httpx.AsyncClient) -> None:
        answer = (await post(client, ask("vendor/any:7b", n=2))).json()
        valid("CreateChatCompletionResponse", answer)
        assert answer["model"] == "vendor/any:7b"
        assert len(answer["choices"]) == 2
        assert (
            answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        )

    async def test_streams_keep_the_schema_and_the_order(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, ask(stream_options={"include_usage": True}))
        for chunk in chunks[:-1]:
            valid("CreateChatCompletionStreamResponse", chunk)
        role, *content, finish, usage, done = chunks
        assert role["choices"][0]["delta"]["role"] == "assistant"
        assert said(content).split() == [c["choices"][0]["delta"]["content"].strip() for c in content]
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert {c["usage"] for c in (role, *content, finish)} == {None}
        assert (usage["choices"], usage["usage"]["prompt_tokens"], done) == ([], 2, "[DONE]")
        assert len({(c["id"], c["created"], c["model"]) for c in chunks[:-1]}) == 1

    async def test_a_stream_says_what_a_plain_answer_says(self, client: httpx.AsyncClient) -> None:
        plain = (await post(client, ask())).json()["choices"][0]["message"]["content"]
        chunks = await stream(client, ask())
        assert said(chunks) == plain
        assert not any("usage" in chunk for chunk in chunks)

    async def test_each_event_is_a_chunk_of_its_own(self, up: Upstream) -> None:
        data = await everything(up, ask("m-nodone", stream=True))
        pieces = re.findall(rb"\r\n([0-9a-f]+)\r\n(data: .*\n\n)", data)
        assert len(pieces) == data.count(b"data: ") > 10
        assert all(int(size, 16) == len(piece) for size, piece in pieces)

    async def test_legacy_completions(self, client: httpx.AsyncClient) -> None:
        body = {"model": "ok", "prompt": "SAY well then"}
        answer = (await client.post("/completions", json=body)).json()
        valid("CreateCompletionResponse", answer)
        chunks = events((await client.post("/completions", json=body | {"stream": True})).text)
        valid("CreateCompletionResponse", chunks[-2])
        assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == answer["choices"][0]["text"] == "well then"

    async def test_embeddings(self, client: httpx.AsyncClient) -> None:
        body = {"model": "embedding", "input": ["red fox", "fox red", "blue"], "dimensions": 8}
        answer = (await client.post("/embeddings", json=body)).json()
        valid("CreateEmbeddingResponse", answer)
        one, same, other = (entry["embedding"] for entry in answer["data"])
        assert one == same != other
        coded = (await client.post("/embeddings", json=body | {"encoding_format": "base64"})).json()
        unpacked = struct.unpack("<8f", base64.b64decode(coded["data"][0]["embedding"]))
        assert list(unpacked) == pytest.approx(one)
        tokens = (await client.post("/embeddings", json={"model": "e", "input": [1, 2]})).json()
        assert len(tokens["data"]) == 1

    async def test_models(self, client: httpx.AsyncClient, up: Upstream) -> None:
        valid("ListModelsResponse", (await client.get("/models")).json())
        valid("Model", (await client.get("/models/large")).json())
        assert (await client.get("/models/none")).status_code == 404
        up.script("/models", ["503"])
        assert (await client.get("/models")).status_code == 503

    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"{", 400), (b"[]", 400), (b'{"messages": 1, "tools": 3}', 400), (b'{"model": "m", "n": "x"}', 400)],
    )
    async def test_wrong_requests_are_refused(self, client: httpx.AsyncClient, body: bytes, status: int) -> None:
        answer = await client.post("/chat/completions", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


class TestContent:
    @pytest.mark.parametrize("text", ["x", "  two  spaces \n\n", "ünï → 😀 " * 50])
    async def test_say_is_verbatim(self, client: httpx.AsyncClient, text: str) -> None:
        assert said(await stream(client, ask(text=f"SAY {text}"))) == text

    @pytest.mark.parametrize("text", ["word " * 1000, "x" * 100_000])
    async def test_a_long_message_is_told_apart_in_few_words(self, client: httpx.AsyncClient, text: str) -> None:
        one, other = [said(await stream(client, ask(text=text + end))) for end in ("a", "b")]
        assert one != other
        assert len(one) < 500

    async def test_tool_calls_as_openai_streams_them(self, up: Upstream, client: httpx.AsyncClient) -> None:
        tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
        body = ask(text='CALL add {"a": 1}\nCALL add {"a": 2}', tools=tools)
        answer = (await post(client, body)).json()
        valid("CreateChatCompletionResponse", answer)
        async with (
            openai.AsyncOpenAI(base_url=up.url, api_key="any") as sdk,
            sdk.chat.completions.stream(**body) as streamed,
        ):
            final = (await streamed.get_final_completion()).choices[0]
        assert final.finish_reason == answer["choices"][0]["finish_reason"] == "tool_calls"
        assert [c.function.arguments for c in final.message.tool_calls or ()] == ['{"a": 1}', '{"a": 2}']
        first = next(c for c in await stream(client, body) if c["choices"][0]["delta"].get("tool_calls"))
        assert first["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "add", "arguments": ""}

    async def test_a_tool_result_is_answered_in_words(self, client: httpx.AsyncClient) -> None:
        body = ask(text="CALL add {}", tools=[{"type": "function", "function": {"name": "add"}}])
        body["messages"] += [{"role": "assistant", "content": None}, {"role": "tool", "content": "3"}]
        assert (await post(client, body)).json()["choices"][0]["message"]["content"] == "The tool said: 3"

    async def test_a_forced_tool_gets_arguments_of_its_schema(self, client: httpx.AsyncClient) -> None:
        schema = {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 3},
                "kind": {"enum": ["a", "b"]},
                "at": {"$ref": "#/$defs/at"},
            },
            "required": ["n", "kind", "at"],
            "$defs": {
                "at": {"anyOf": [{"type": "array", "minItems": 2, "items": {"type": "string"}}, {"type": "null"}]}
            },
        }
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        for choice in ("required", {"type": "function", "function": {"name": "f"}}):
            answer = (await post(client, ask(tools=tools, tool_choice=choice))).json()
            (call,) = answer["choices"][0]["message"]["tool_calls"]
            jsonschema.validate(json.loads(call["function"]["arguments"]), schema)
        wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        document = (await post(client, ask(response_format=wanted))).json()["choices"][0]["message"]["content"]
        jsonschema.validate(json.loads(document), schema)

    async def test_reasoning_and_script(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, ask(text="REASON because of it"))
        reasons = [c["choices"][0]["delta"].get("reasoning_content", "") for c in chunks[:-1]]
        assert "".join(reasons) == "because of it"
        table = {"say": None, "refusal": "no, sorry", "finish": "content_filter", "usage": {"prompt_tokens": 7}}
        answer = (await post(client, ask(text=f"SCRIPT {json.dumps(table)}"))).json()
        assert answer["choices"][0]["message"]["refusal"] == "no, sorry"
        assert (answer["choices"][0]["finish_reason"], answer["usage"]["prompt_tokens"]) == ("content_filter", 7)

    async def test_a_limit_of_tokens_shortens(self, client: httpx.AsyncClient) -> None:
        answer = (await post(client, ask(text="SAY a b c d", max_tokens=2))).json()["choices"][0]
        assert (answer["message"]["content"], answer["finish_reason"]) == ("a b", "length")

    async def test_prefill(self, client: httpx.AsyncClient) -> None:
        body = ask("m-prefill", "SAY one two three")
        body["messages"].append({"role": "assistant", "content": "one tw"})
        assert said(await stream(client, body)) == "o three"
        assert said(await stream(client, body | {"model": "m"})) == "one two three"
        refused = await post(client, body | {"model": "m-noprefill"})
        assert (refused.status_code, "prefill" in refused.json()["error"]["message"]) == (400, True)

    async def test_the_demo_says_that_it_is_scripted(self) -> None:
        async with (
            Upstream(friendly=True) as up,
            httpx.AsyncClient(verify=PLAIN, base_url=up.url, trust_env=False) as client,
        ):
            text = said(await stream(client, ask("large-norole", "hi")))
            assert text == "This is a scripted answer from the demo model 'large'. You asked: hi"
            (attempt,) = up.log
            assert attempt.ended_at is not None
            assert attempt.ended_at - attempt.at > 0.02 * (attempt.chunks - 1)


class TestFaultTable:
    def test_every_fault_is_documented(self) -> None:
        documented = set(re.findall(r"(?m)(?:^    |  )([a-z]+)(?::[A-Z]+)?(?= )", faults.__doc__ or ""))
        assert documented >= NAMES

    def test_names(self) -> None:
        assert [fault.label for fault in parse_name("a-cut:3-429ra2-cost-b")] == ["cut:3", "429", "cost"]
        assert base_name("gpt-4o-mini-cut:3-500once") == "gpt-4o-mini"
        assert not parse_name("meta-llama/llama-3.3-70b-instruct:free-slow:abc")
        with pytest.raises(ValueError, match="nonsense"):
            parse_script("cut:3-nonsense")

    def test_conditions(self) -> None:
        moment = Moment(seed=1)
        played = {"x2": "", "after2": "", "for0": "", "for1000": "", "over0": "", "over5": ""}
        for _ in range(4):
            moment.begin()
            for when in played:
                played[when] += "fo"[not parse_name(f"m-500:{when}").now(moment)]
            moment.under_way -= 1
        assert played == {
            "x2": "ffoo",
            "after2": "ooff",
            "for0": "oooo",
            "for1000": "ffff",
            "over0": "ffff",
            "over5": "oooo",
        }

    def test_chance_is_seeded(self) -> None:
        def run(seed: int) -> list[bool]:
            moment = Moment(seed)
            return [bool(parse_name("m-500:p0.3").now(moment)) for _ in range(1000)]

        assert run(1) == run(1) != run(2)
        assert 250 < sum(run(1)) < 350
