"""The shorter way to the endpoints gives what the way through all layers gives."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from app.api.direct import Direct
from app.life import life

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from tests.conftest import Running

_HELLO = {"model": "up/m", "messages": [{"role": "user", "content": "hello there"}]}
_BODIES: dict[str, Any] = {
    "plain": _HELLO,
    "auto": {**_HELLO, "model": "auto"},
    "stream": {**_HELLO, "stream": True, "stream_options": {"include_usage": True}},
    "no messages": {"model": "up/m"},
    "not an object": [1],
}
_WEB_PAGE = {"origin": "https://page.example"}
_VARYING = re.compile(rb'"id":"[^"]*"|"created":\d+')
_OF_WEB_PAGES = ("access-control-", "vary", "date", "x-request-id")


@pytest.mark.parametrize("body", _BODIES.values(), ids=_BODIES.keys())
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/embeddings"])
async def test_both_ways_answer_alike(sluice: Running, path: str, body: Any) -> None:
    short = await sluice.client.post(path, json=body)
    long = await sluice.client.post(path, json=body, headers=_WEB_PAGE)
    assert long.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in short.headers
    assert short.status_code == long.status_code
    assert _VARYING.sub(b"", short.content) == _VARYING.sub(b"", long.content)
    assert _headers(short) == _headers(long)
    assert len(short.headers.get_list("x-request-id")) == len(long.headers.get_list("x-request-id")) == 1


async def test_what_is_unusual_takes_the_long_way(sluice: Running) -> None:
    assert (await sluice.client.post("/v1/chat/completions/", json=_HELLO)).status_code == 200
    assert (await sluice.client.get("/v1/chat/completions")).status_code == 405
    preflight = {**_WEB_PAGE, "access-control-request-method": "POST"}
    assert (await sluice.client.options("/v1/chat/completions", headers=preflight)).status_code == 200
    own_id = await sluice.client.post("/v1/chat/completions", json=_HELLO, headers={"x-request-id": "mine-1"})
    assert own_id.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_probes_answer_alike_on_both_ways(sluice: Running, path: str) -> None:
    while b'"starting"' in (await sluice.client.get("/health/ready")).content:
        pass
    short = await sluice.client.get(path)
    long = await sluice.client.get(path, headers=_WEB_PAGE)
    assert (short.status_code, long.headers["access-control-allow-origin"]) == (200, "*")
    assert short.headers["content-type"] == long.headers["content-type"]
    assert short.content == long.content
    assert len(short.headers.get_list("x-request-id")) == 1


async def test_many_that_are_first_to_ask_for_the_rest_get_it(sluice: Running) -> None:
    answers = await asyncio.gather(*(sluice.client.get("/v1/models") for _ in range(8)), sluice.chat("up/m"))
    assert {answer.status_code for answer in answers} == {200}


async def test_who_leaves_before_the_rest_is_there_takes_it_from_nobody(sluice: Running) -> None:
    leaving = asyncio.create_task(sluice.app.site())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await sluice.client.get("/v1/models")).status_code == 200


async def test_a_rest_that_cannot_be_made_is_tried_again(sluice: Running) -> None:
    made = await sluice.app.site()
    tries = [ImportError("no memory"), None]

    def make() -> FastAPI:
        if error := tries.pop(0):
            raise error
        return made

    app = Direct(sluice.gateway, life, {}, make)
    with pytest.raises(ImportError):
        await app.site()
    assert await app.site() is await app.site() is made


def _headers(response: httpx.Response) -> dict[str, str]:
    """Return the headers that both ways share, times without their figures."""
    kept = {name: value for name, value in response.headers.items() if not name.startswith(_OF_WEB_PAGES)}
    return {name: re.sub(r"dur=[\d.]+", "dur", value) for name, value in kept.items()}


async def test_a_websocket_is_closed_and_begins_nothing(sluice: Running) -> None:
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    backends = sluice.gateway.backends
    await sluice.app({"type": "websocket", "path": "/v1", "headers": []}, receive, send)
    assert (told, sluice.gateway.backends) == (["websocket.close"], backends)
