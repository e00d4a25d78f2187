"""No error in another shape, on any route and method; and the checker of all answers sees what is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.conftest import Running, Start
from tests.schema import Sent, stream_violations, violations
from tests.upstream import Upstream

_ROUTES = ("/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/auto", "/v1/route", "/nowhere")
_MORE = ("/", "/health/live", "/health/ready", "/metrics", "/admin/config", "/admin/reload", "/admin/breakers", "/v2/x")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_every_route_and_method_answers_in_openais_shape(sluice: Running, method: str) -> None:
    for path in (*_ROUTES, *_MORE, "/admin/breakers/up/large", "/chat/completions/", "/models/none/of/these"):
        answer = await sluice.client.request(method, path)
        assert answer.headers["x-request-id"]
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}, (method, path)
            assert isinstance(error["code"], str)


async def test_unknown_url_and_wrong_method_say_so(sluice: Running) -> None:
    unknown = await sluice.client.post("/v1/chat/complete", json={})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    assert "POST /v1/chat/complete" in unknown.json()["error"]["message"]
    wrong = await sluice.client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "a\0b"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "x": NaN}', "not valid JSON"),
        (b'{"x":' + b"[" * 3000 + b"]" * 3000 + b"}", "JSON"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "x":' + b"[" * 300 + b"]" * 300 + b"}", "nest"),
        (b'{"x":' + b"[" * 990 + b'"\\u0000"' + b"]" * 990 + b"}", "nest"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/route"])
async def test_bodies_that_cannot_be_read_are_400(
    sluice: Running, up: Upstream, path: str, raw: bytes, told: str
) -> None:
    answer = await sluice.client.post(path, content=raw, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error"), error
    assert told in error["message"] or path == "/v1/embeddings", error
    assert up.log == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/route", "/admin/breakers/up/large"])
async def test_a_body_over_the_limit_is_413_everywhere(up: Upstream, start: Start, path: str) -> None:
    async with start("MODEL_LARGE=up/large\nMAX_BODY_MB=0.01\n", up=up) as sluice:
        answer = await sluice.client.post(path, content=b'{"x": "' + b"x" * 20_000 + b'"}')
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert "MAX_BODY_MB" in answer.json()["error"]["message"]


async def test_a_body_without_end_is_answered_and_its_connection_closed(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nMAX_BODY_MB=0.01\n", up=up) as sluice:
        reader, writer = await asyncio.open_connection("127.0.0.1", sluice.client.base_url.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"16000\r\n" + b"x" * 0x16000 + b"\r\n")  # over eight times the limit, and no end to it
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"request_too_large" in answer
        writer.close()


async def test_a_bug_in_a_route_is_an_error_with_its_request_id(sluice: Running) -> None:
    async def broken() -> None:
        raise LookupError("secret detail")

    (await sluice.app.site()).add_api_route("/broken", broken)
    answer = await sluice.client.get("/broken")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "value",
    [
        {"detail": "no"},
        {"error": "no"},
        {"error": {"message": "m", "type": "t", "param": None, "code": 7}},
        {"error": {"message": "", "type": "t", "param": None, "code": None}},
        {"error": {"message": "m", "type": "t", "param": None, "code": None, "more": 1}},
    ],
)
def test_the_checker_sees_wrong_errors(value: Any) -> None:
    assert list(violations("ErrorResponse", orjson.dumps(value)))
    assert list(
        Sent(
            "GET", "/x", 404, [(b"content-type", b"application/json")], bytearray(orjson.dumps(value)), ended=True
        ).violations()
    )


_CHUNK = (
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":%s,"finish_reason":null}]}\n\n'
)
_FIRST = _CHUNK % b'{"role":"assistant","content":""}'


@pytest.mark.parametrize(
    "body",
    [
        _FIRST,
        _CHUNK % b'{"content":"x"}' + b"data: [DONE]\n\n",
        _FIRST + b"data: [DONE]\n\n" + _FIRST + b"data: [DONE]\n\n",
        _FIRST + b'data: {"error":{"message":"m","type":"t","param":null,"code":null}}\n\ndata: [DONE]\n\n',
        _FIRST + (_CHUNK % b'{"content":"x"}').replace(b'"a"', b'"b"') + b"data: [DONE]\n\n",
        _CHUNK % b'{"role":"assistant","content":7}' + b"data: [DONE]\n\n",
        b"event: x\n\n" + _FIRST + b"data: [DONE]\n\n",
    ],
)
def test_the_checker_sees_wrong_streams(body: bytes) -> None:
    assert list(stream_violations(body, ended=True))


def test_the_checker_lets_good_ones_pass() -> None:
    assert list(stream_violations(b": x\n\n" + _FIRST + b"data: [DONE]\n\n", ended=True)) == []
    assert list(violations("ErrorResponse", b'{"error":{"message":"m","type":"t","param":null,"code":null}}')) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "x" * 600}, "model"),
        ({"model": "up/a\nforged line"}, "model"),
        ({"models": ["up/a"] * 40}, "models"),
        ({"models": ["up/a", "y" * 600]}, "models[1]"),
    ],
)
async def test_names_of_models_are_bounded(sluice: Running, up: Upstream, body: dict[str, Any], param: str) -> None:
    answer = await sluice.client.post(
        "/v1/chat/completions", json={**body, "messages": [{"role": "user", "content": "x"}]}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert up.log == []
