"""The faults of the upstream are what they say: on the wire, in the log and in time."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
from tests.plain import PLAIN
from tests.upstream.client import ask, events, everything, post, raw, stream, wire


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def client(up: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=PLAIN, base_url=up.url, timeout=10, trust_env=False) as http:
        yield http


class TestErrors:
    @pytest.mark.parametrize(
        ("model", "status", "path", "value"),
        [
            ("m-401", 401, ("error", "code"), "invalid_api_key"),
            ("m-404", 404, ("error", "code"), "model_not_found"),
            ("m-529", 529, ("error", "type"), "server_error"),
            ("m-400ctx", 400, ("error", "code"), "context_length_exceeded"),
            ("m-400filter", 400, ("error", "code"), "content_filter"),
            ("m-403mod", 403, ("error", "type"), "moderation_error"),
            ("m-429quota", 429, ("error", "code"), "insufficient_quota"),
            ("m-down", 503, ("error", "code"), "overloaded"),
            ("m-orerr:429", 200, ("error", "code"), 429),
            ("m-gemerr", 429, (0, "error", "status"), "RESOURCE_EXHAUSTED"),
            ("m-cferr:503", 503, ("errors", 0, "code"), 3040),
            ("m-ollerr", 500, ("error",), "llama runner process has terminated"),
            ("m-dtlerr", 422, ("detail", 0, "type"), "missing"),
        ],
    )
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_json(
        self, client: httpx.AsyncClient, model: str, status: int, path: tuple[Any, ...], value: Any, streamed: bool
    ) -> None:
        answer = await post(client, ask(model, stream=streamed))
        found = answer.json()
        for step in path:
            found = found[step]
        assert (answer.status_code, found) == (status, value)

    async def test_not_json(self, client: httpx.AsyncClient) -> None:
        html = await post(client, ask("m-htmlerr"))
        assert (html.status_code, html.headers["content-type"], html.text[:6]) == (502, "text/html", "<html>")
        assert (await post(client, ask("m-txterr:503"))).status_code == 503
        assert (await post(client, ask("m-empty"))).content == b""
        assert (await post(client, ask("m-bighead:2"))).headers["x-big"] == "x" * 2048

    async def test_then_ok(self, client: httpx.AsyncClient) -> None:
        answers = [await post(client, ask("m-429ra2:x2")) for _ in range(3)]
        assert [a.status_code for a in answers] == [429, 429, 200]
        assert [a.headers.get("retry-after") for a in answers] == ["2", "2", None]
        assert [(await post(client, ask("m-500once"))).status_code for _ in range(2)] == [500, 200]
        assert {(await post(client, ask("m-429"))).status_code for _ in range(4)} == {429}

    async def test_scripts(self, client: httpx.AsyncClient, up: Upstream) -> None:
        up.script("m", ["500", "ok", "429ra1", "401-slow:0"])
        assert [(await post(client, ask("m"))).status_code for _ in range(5)] == [500, 200, 429, 401, 200]
        up.always("m", "503")
        assert [(await post(client, ask("m"))).status_code for _ in range(2)] == [503, 503]
        up.always("m", None)
        assert (await post(client, ask("m"))).status_code == 200
        assert [a.number for a in up.of("m")] == list(range(1, 9))
        with pytest.raises(ValueError, match="no such fault"):
            up.script("m", ["500", "what"])

    async def test_a_wrong_key_is_refused_before_any_fault(self, client: httpx.AsyncClient, up: Upstream) -> None:
        up.key = "sk-right"
        assert (await post(client, ask("m-500"))).status_code == 401
        client.headers["authorization"] = "Bearer sk-right"
        assert (await post(client, ask("m-500"))).status_code == 500


class TestConnection:
    async def test_reset_and_close_before_headers(self, up: Upstream) -> None:
        assert await everything(up, ask("m-close")) == b""
        with pytest.raises(ConnectionResetError):
            await everything(up, ask("m-rst"))
        assert [a.ended for a in up.log] == ["cut", "cut"]

    @pytest.mark.parametrize(("fault", "terminated"), [("cut", False), ("cuteof", True), ("ollsilent", True)])
    async def test_cuts_after_k_content_chunks(self, up: Upstream, fault: str, terminated: bool) -> None:
        data = await everything(up, ask(f"m-{fault}:3", stream=True))
        assert data.endswith(b"\r\n0\r\n\r\n") == terminated
        assert (b"[DONE]" in data, b'"finish_reason":"stop"' in data) == (False, False)
        assert len(re.findall(rb'"content":"[^"]+"', data)) == up.log[0].chunks == 3
        assert len(data) == up.log[0].bytes

    async def test_a_reset_stream_delivers_what_was_sent(self, up: Upstream) -> None:
        async with raw(up, wire(ask("m-cutrst:2", stream=True))) as (reader, _):
            for _event in range(3):
                assert b"data: " in await reader.readuntil(b"}\n\n")
            with pytest.raises(ConnectionResetError):
                await reader.readuntil(b"}\n\n")

    @pytest.mark.parametrize("fault", ["cut", "cutrst", "cuteof"])
    async def test_plain_answers_break_too(self, client: httpx.AsyncClient, fault: str) -> None:
        with pytest.raises((httpx.TransportError, json.JSONDecodeError)):
            (await post(client, ask(f"m-{fault}"))).json()

    @pytest.mark.parametrize(
        ("fault", "last"),
        [
            ("ssemid", {"message": "The server had an error while it was answering."}),
            ("ormid", {"code": 502}),
            ("ollmid", "llama runner process has terminated"),
        ],
    )
    async def test_errors_in_the_middle(self, client: httpx.AsyncClient, fault: str, last: Any) -> None:
        chunks = await stream(client, ask(f"m-{fault}:2"))
        error = chunks[-1]["error"]
        assert (error == last) if isinstance(last, str) else (last.items() <= error.items())
        assert len(chunks) == 4

    async def test_groq_names_its_error_and_usage(self, client: httpx.AsyncClient) -> None:
        assert "error" in (await stream(client, ask("m-groqmid:1")))[-1]["x_groq"]
        assert "usage" in (await stream(client, ask("m-xgroq")))[-2]["x_groq"]

    @pytest.mark.parametrize("rest", ["", "-cut:5"])
    async def test_one_malformed_event(self, up: Upstream, rest: str) -> None:
        data = await everything(up, ask(f"m-bad:2{rest}-nodone", stream=True))
        lines = re.findall(rb"data: (.*)\n\n", data)
        assert [n for n, line in enumerate(lines) if not _is_json(line)] == [3]
        assert (b'"stop"' in data) == (rest == "")

    async def test_flavours(self, client: httpx.AsyncClient) -> None:
        body: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        text = (await post(client, ask("m-orping-cost-varyids-norole-crlf-bytes:5", **body))).text
        assert text.startswith(": OPENROUTER PROCESSING\r\n\r\ndata: ")
        chunks = events(text)
        assert len({c["id"] for c in chunks[:-1]}) == len(chunks) - 1
        assert "role" not in chunks[0]["choices"][0]["delta"]
        assert chunks[-2]["usage"]["cost"] > 0

    async def test_ends_without_done(self, up: Upstream) -> None:
        data = await everything(up, ask("m-nodone", stream=True))
        assert (b"[DONE]" in data, b'"stop"' in data, data[-5:]) == (False, True, b"0\r\n\r\n")
        async with raw(up, wire(ask("m-nodoneopen", stream=True))) as (reader, _):
            await reader.readuntil(b'"finish_reason":"stop"')
        await up.wait_for(lambda log: log[-1].ended == "client_closed")

    @pytest.mark.parametrize("fault", ["hang", "late:60", "slow:60", "stall:2", "drip:60000", "dripbyte", "dripword"])
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_client_that_leaves_is_noticed_at_once(self, up: Upstream, fault: str, streamed: bool) -> None:
        async with raw(up, wire(ask(f"m-{fault}", stream=streamed))):
            await up.wait_for(lambda log: len(log) == 1)
            left_at = time.monotonic()
        (attempt,) = await up.wait_for(lambda log: log[0].ended != "open")
        assert (attempt.ended, up.active) == ("client_closed", 0)
        assert attempt.closed_at is not None
        assert 0 <= attempt.closed_at - left_at < 0.1

    @pytest.mark.parametrize("model", ["m-endless", "m-longline", "m-endlesshead"])
    async def test_a_client_that_reads_slowly_is_sent_no_more(self, up: Upstream, model: str) -> None:
        async with raw(up, wire(ask(model, stream=True))) as (_reader, writer):
            cast("asyncio.ReadTransport", writer.transport).pause_reading()
            await up.wait_for(lambda log: bool(log) and log[0].blocked)
            assert up.log[0].bytes < 32 * 1024 * 1024
            writer.transport.abort()
        await up.wait_for(lambda log: log[0].ended == "client_closed")

    async def test_keep_alive_chunked_bodies_and_expect(self, up: Upstream) -> None:
        body = json.dumps(ask(text="SAY fine")).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with raw(up, head) as (reader, writer):
            for _ in range(2):
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(b"5\r\n%b\r\n%x;ext=1\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:]))
                await reader.readuntil(b'"fine"')
                await reader.readuntil(b'"reasoning_tokens":0}}}')
                writer.write(head)
        assert [(a.connection, a.ended) for a in up.log] == [(1, "done"), (1, "done")]

    async def test_what_is_no_http_is_refused(self, up: Upstream) -> None:
        async with raw(up, b"nonsense\r\n\r\n") as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


class TestLifeAndLog:
    async def test_nothing_is_left_and_the_port_comes_back(self, client: httpx.AsyncClient) -> None:
        before = asyncio.all_tasks()
        up = Upstream()
        async with up, AsyncExitStack() as callers:
            for model in ("m-hang", "m-stall", "m-endless", "ok"):
                await callers.enter_async_context(raw(up, wire(ask(model, stream=True))))
            await up.wait_for(lambda log: len(log) == 4)
            assert (up.open, up.max_open) == (4, 4)
            await up.stop()
            assert (asyncio.all_tasks(), up.open, up.active) == (before, 0, 0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(up.host, up.port)
        async with up:
            assert (await client.post(f"{up.url}/chat/completions", json=ask())).status_code == 200

    async def test_concurrency_is_counted(self, client: httpx.AsyncClient, up: Upstream) -> None:
        await asyncio.gather(*(post(client, ask("m-late:0.05")) for _ in range(7)))
        assert (up.max_active, up.active) == (7, 0)
        assert all(a.headers["content-type"] == "application/json" and a.body == ask("m-late:0.05") for a in up.log)
        up.reset()
        assert (up.log, up.max_active) == ([], 0)

    async def test_a_wish_that_fails_reaches_the_test(self, up: Upstream) -> None:
        with pytest.raises(IndexError):
            await up.wait_for(lambda log: log[0].ended == "done")
        with pytest.raises(TimeoutError):
            await up.wait_for(bool, timeout_s=0.01)

    async def test_as_a_program_with_control_over_http(self) -> None:
        command = (sys.executable, "-m", "tests.upstream", "--port", "0", "--log")
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(*command, stdout=pipe, cwd=Path(__file__).parents[2])
        assert program.stdout is not None
        url = (await program.stdout.readline()).decode().removeprefix("listening on ").strip()
        async with httpx.AsyncClient(verify=PLAIN, base_url=url, trust_env=False) as client:
            scripted = {"model": "m", "faults": ["500", "ok"], "always": "503"}
            assert (await client.post("/_script", json=scripted)).json() == {"ok": True}
            assert (await client.post("/_script", json={"model": "m", "faults": ["what"]})).status_code == 400
            assert [(await post(client, ask("m"))).status_code for _ in range(3)] == [500, 200, 503]
            log = (await client.get("/_log", params={"model": "m", "ended": 3})).json()
            assert [a["status"] for a in log["log"]] == [500, 200, 503]
            assert (await client.get("/_log", params={"begun": 4, "timeout": 0.01})).status_code == 408
            await client.post("/_reset")
            assert (await client.get("/_log")).json()["log"] == []
        assert b" m #1 500 500 done " in await program.stdout.readline()
        program.terminate()
        assert await program.wait() == 0


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
