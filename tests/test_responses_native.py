"""Responses at a backend that has the wire, relayed; and those that are kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.ledger.test_db import until
from tests.test_dispatch import records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

_SEARCH: Any = [{"type": "web_search"}]


def _client(sluice: Running, key: str = "any") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=sluice.url, api_key=key, max_retries=0)


def _env(up: Upstream, more: str = "") -> str:
    return f"OPENAI_API_KEY=sk-up\nOPENAI_BASE_URL={up.url}\nMODEL_LARGE=openai/gpt\n{more}"


def _user(text: str) -> Any:
    return {"role": "user", "content": text}


class TestRelay:
    @pytest.fixture
    async def sluice(self, up: Upstream, start: Start) -> AsyncIterator[Running]:
        async with start(_env(up), up=up) as found:
            yield found

    async def test_the_callers_own_words_arrive(self, sluice: Running, up: Upstream) -> None:
        kept = records(sluice)
        async with _client(sluice) as ai:
            answer = await ai.responses.create(
                model="auto", input="SAY hello world", tools=_SEARCH, max_output_tokens=9
            )
        assert [item.type for item in answer.output] == ["web_search_call", "message"]
        assert answer.output_text == "hello world"
        sent = up.log[0]
        assert (sent.path, sent.body["input"], sent.body["model"]) == ("/v1/responses", "SAY hello world", "gpt")
        assert (sent.body["store"], sent.body["include"]) == (False, ["reasoning.encrypted_content"])
        assert (kept[0].endpoint, kept[0].chars) == ("responses", 11)
        assert kept[0].usage
        assert (kept[0].usage.completion, kept[0].usage.estimated) == (2, False)

    async def test_streams_are_relayed_with_their_own_numbers(self, sluice: Running) -> None:
        kept = records(sluice)
        async with _client(sluice) as ai:
            for _ in range(2):
                async with ai.responses.stream(model="auto", input="REASON so it is", tools=_SEARCH) as stream:
                    final = await stream.get_final_response()
        assert [item.type for item in final.output] == ["web_search_call", "reasoning", "message"]
        assert final.id.startswith("resp_native")
        assert kept[0].first_token_ms
        assert kept[0].usage
        assert kept[0].usage.reasoning == 3

    async def test_reasoning_that_it_did_not_seal_is_left_out(self, sluice: Running, up: Upstream) -> None:
        async with _client(sluice) as ai:
            said: list[Any] = [{"role": "user", "content": "REASON so it is"}]
            for model in ("up/m", "auto"):
                answer = await ai.responses.create(model=model, input=said)
                said += [item.model_dump(exclude_none=True) for item in answer.output]
                said.append({"role": "user", "content": "and?"})
            await ai.responses.create(model="auto", input=said)
        kinds = [item.get("type", "message") for item in up.log[-1].body["input"]]
        assert (
            kinds == ["message", "message", "message", "reasoning", "message", "message"]
            or kinds.count("reasoning") < 2
        )

    @pytest.mark.parametrize(
        ("fault", "how"), [("cut:3", "continue"), ("stall:3", "continue"), ("ssemid:3", "continue")]
    )
    async def test_a_relayed_stream_that_breaks_is_gone_on_with_as_a_chat(
        self, up: Upstream, start: Start, fault: str, how: str
    ) -> None:
        more = f"BACKENDS__PRE__BASE_URL={up.url}\nBACKENDS__PRE__PREFILL=true\nIDLE_TIMEOUT_S=0.3\n"
        async with start(_env(up, more)) as sluice, _client(sluice) as ai:
            kept = records(sluice)
            async with ai.responses.stream(
                model=f"openai/gpt-{fault}", input="SAY one two three four five",
                extra_body={"models": ["pre/b-prefill"]},
            ) as stream:  # fmt: skip
                final = await stream.get_final_response()
        assert final.output_text == "one two three four five"
        assert (final.status, kept[0].rescued) == ("completed", (how,))

    async def test_what_only_it_can_do_is_neither_sent_elsewhere_nor_gone_on_with(
        self, sluice: Running, up: Upstream
    ) -> None:
        async with _client(sluice) as ai:
            with pytest.raises(openai.BadRequestError) as caught:
                await ai.responses.create(model="up/m", input="hi", tools=_SEARCH)
            assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")
            assert up.log == []
            stream = await ai.responses.create(
                model="openai/gpt-cut:2", input="SAY a b c d", tools=_SEARCH, stream=True,
                extra_body={"models": ["openai/other"]},
            )  # fmt: skip
            with pytest.raises(openai.APIError):
                _ = [event async for event in stream]
        assert len(up.log) == 1

    @pytest.mark.parametrize("stream", [True, False])
    async def test_errors(self, sluice: Running, *, stream: bool) -> None:
        async with _client(sluice) as ai:
            with pytest.raises(openai.BadRequestError) as caught:
                await ai.responses.create(model="openai/gpt-400ctx", input="hi", stream=stream)
        assert caught.value.code == "context_length_exceeded"


class TestStore:
    @pytest.fixture
    async def sluice(self, up: Upstream, start: Start, tmp_path: Path) -> AsyncIterator[Running]:
        text = f"DATA_DIR={tmp_path}\nRESPONSES_STORE=true\nAPI_KEYS=one,two\nMODEL_LARGE=up/large\n"
        async with start(text, up=up) as found:
            await database_open(found)
            yield found

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_conversation_goes_on_from_its_last_response(
        self, sluice: Running, up: Upstream, *, stream: bool
    ) -> None:
        async with _client(sluice, "one") as ai:

            async def say(text: str, previous: str | None = None) -> Any:
                more: Any = {"previous_response_id": previous} if previous else {}
                if not stream:
                    return await ai.responses.create(model="auto", input=text, instructions="Be kind.", **more)
                async with ai.responses.stream(model="auto", input=text, instructions="Be kind.", **more) as events:
                    return await events.get_final_response()

            first = await say("SAY one")
            second = await say("SAY two", first.id)
            await say("SAY three", second.id)
        assert [message["content"] for message in up.log[-1].body["messages"]] == [
            "Be kind.", "SAY one", "one", "SAY two", "two", "SAY three",
        ]  # fmt: skip

    async def test_get_list_and_delete(self, sluice: Running) -> None:
        async with _client(sluice, "one") as ai:
            first = await ai.responses.create(model="auto", input="SAY one")
            second = await ai.responses.create(model="auto", input="SAY two", previous_response_id=first.id)
            found = await ai.responses.retrieve(second.id)
            assert found == second
            listed = await ai.responses.input_items.list(second.id, order="asc", limit=2)
            assert [item.type for item in listed.data] == ["message", "message"]
            assert listed.has_more is True
            everything = [item async for item in ai.responses.input_items.list(second.id, limit=2)]
            assert len(everything) == 3
            await ai.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await ai.responses.retrieve(first.id)
            with pytest.raises(openai.NotFoundError) as caught:
                await ai.responses.create(model="auto", input="x", previous_response_id=first.id)
            assert caught.value.code == "previous_response_not_found"
            assert await ai.responses.create(model="auto", input="x", previous_response_id=second.id)

    async def test_nobody_reads_anothers(self, sluice: Running) -> None:
        async with _client(sluice, "one") as one, _client(sluice, "two") as two:
            mine = await one.responses.create(model="auto", input="SAY secret")
            reference: Any = {"type": "item_reference", "id": mine.output[0].id}
            for attempt in (
                two.responses.retrieve(mine.id),
                two.responses.delete(mine.id),
                two.responses.create(model="auto", input="x", previous_response_id=mine.id),
                two.responses.create(model="auto", input=[reference]),
            ):
                with pytest.raises(openai.NotFoundError):
                    await attempt
            assert (await one.responses.retrieve(mine.id)).output_text == "secret"

    async def test_items_are_found_by_reference(self, sluice: Running, up: Upstream) -> None:
        async with _client(sluice, "one") as ai:
            first = await ai.responses.create(model="auto", input="SAY one")
            reference: Any = {"type": "item_reference", "id": first.output[0].id}
            await ai.responses.create(model="auto", input=[reference, _user("SAY two")])
        assert [message["role"] for message in up.log[-1].body["messages"]] == ["assistant", "user"]

    async def test_store_false_is_not_kept(self, sluice: Running) -> None:
        async with _client(sluice, "one") as ai:
            answer = await ai.responses.create(model="auto", input="SAY one", store=False)
            with pytest.raises(openai.NotFoundError):
                await ai.responses.retrieve(answer.id)

    async def test_a_relayed_response_is_kept_as_well(self, up: Upstream, start: Start, tmp_path: Path) -> None:
        async with start(_env(up, f"DATA_DIR={tmp_path}\nRESPONSES_STORE=true\n")) as sluice, _client(sluice) as ai:
            await database_open(sluice)
            first = await ai.responses.create(model="auto", input="REASON so it is")
            assert (first.id, first.model_dump()["store"]) == ("resp_native1", True)
            second = await ai.responses.create(model="auto", input="SAY two", previous_response_id=first.id)
            assert second.previous_response_id == first.id
        body = up.log[-1].body
        assert "previous_response_id" not in body
        assert [item["type"] for item in body["input"]] == ["message", "reasoning", "message", "message"]


async def database_open(sluice: Running) -> None:
    """Wait until the database is open; readiness says ``ready`` while it is first being opened, too."""
    async with asyncio.timeout(20):
        while sluice.gateway.database is None or sluice.gateway.database.trouble is not None:  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)
    await until(sluice, "ready")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/v1/responses", {"input": "x", "store": True}, "responses_not_stored"),
        ("POST", "/v1/responses", {"input": "x", "previous_response_id": "resp_1"}, "responses_not_stored"),
        ("GET", "/v1/responses/resp_1", None, "responses_not_stored"),
        ("DELETE", "/v1/responses/resp_1", None, "responses_not_stored"),
        ("GET", "/v1/responses/resp_1/input_items", None, "responses_not_stored"),
        ("POST", "/v1/responses/compact", {}, "unsupported_endpoint"),
        ("GET", "/v1/responses", None, "websocket_not_supported"),
    ],
)
async def test_what_is_not_offered_says_so(sluice: Running, method: str, path: str, body: Any, code: str) -> None:
    answer = await sluice.client.request(method, path, json=body)
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["code"] == code


async def test_without_a_store_nothing_is_said_to_be_stored(sluice: Running) -> None:
    async with _client(sluice) as ai:
        assert (await ai.responses.create(model="auto", input="SAY x")).store is False  # type: ignore[attr-defined]
