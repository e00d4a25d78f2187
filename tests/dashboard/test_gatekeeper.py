"""Who gets in: every request and the web socket stand before the gatekeeper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app.dashboard.config import Config, refusal
from app.dashboard.gatekeeper import COOKIE, Gatekeeper
from app.settings import Live, Settings

_HOST = "http://127.0.0.1:8001"


async def _inside(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await PlainTextResponse("inside")(scope, receive, send)


def _gate(tmp_path: Path, text: str) -> Gatekeeper:
    env = tmp_path / ".env"
    env.write_text(text)
    return Gatekeeper(_inside, Config(Live(env)))


def _client(gate: Gatekeeper, address: str = "127.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate, client=(address, 1)), base_url=_HOST)


async def _websocket(gate: Gatekeeper, **headers: str) -> Message:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    told = {"host": "127.0.0.1:8001", **headers}
    raw = [(name.encode(), value.encode()) for name, value in told.items()]
    scope: dict[str, Any] = {
        "type": "websocket", "path": "/_nicegui_ws/socket.io/", "headers": raw, "client": ("127.0.0.1", 1),
        "query_string": b"", "scheme": "ws",
    }  # fmt: skip
    await gate(scope, receive, send)
    return sent[0]


async def test_without_the_key_there_is_only_the_page_that_asks_for_it(tmp_path: Path) -> None:
    gate = _gate(tmp_path, "ADMIN_KEY=open sesame\n")
    async with _client(gate) as client:
        turned = await client.get("/calls")
        assert (turned.status_code, turned.headers["location"]) == (303, "/login?next=/calls")
        assert (await client.get("/login")).status_code == 200
        assert (await client.get("/health/live")).text == "live"
        assert (await client.get("/static/dashboard.css")).text == "inside"
        for path in ("/_nicegui_ws/socket.io/", "/_nicegui/3/static/nicegui.js"):
            assert (await client.get(path)).status_code == 401
        assert (await client.post("/")).status_code == 401
        assert (await _websocket(gate))["type"] == "websocket.close"


async def test_the_key_opens_and_logging_out_closes(tmp_path: Path) -> None:
    gate = _gate(tmp_path, "ADMIN_KEY=open sesame\n")
    async with _client(gate) as client:
        wrong = await client.post("/login", data={"key": "open barley"})
        assert (wrong.status_code, COOKIE in wrong.cookies) == (401, False)
        right = await client.post("/login?next=/money", data={"key": "open sesame"})
        assert (right.status_code, right.headers["location"]) == (303, "/money")
        cookie = right.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=strict", "max-age=43200"))
        assert "open" not in cookie
        assert (await client.get("/money")).text == "inside"
        token = client.cookies[COOKIE]
        assert (await _websocket(gate, cookie=f"{COOKIE}={token}"))["type"] == "websocket.accept"
        assert (await client.get("/logout")).headers["location"] == "/login"
        assert (await _websocket(gate, cookie=f"{COOKIE}={token}"))["type"] == "websocket.close"


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nX: y"])
async def test_nobody_is_sent_to_another_host(tmp_path: Path, following: str) -> None:
    async with _client(_gate(tmp_path, "ADMIN_KEY=k\n")) as client:
        answer = await client.post("/login", params={"next": following}, data={"key": "k"})
        assert answer.headers["location"] == "/"


async def test_guessing_is_slowed_down_by_address(tmp_path: Path) -> None:
    gate = _gate(tmp_path, "ADMIN_KEY=k\n")
    async with _client(gate, "192.0.2.1") as client:
        statuses = [(await client.post("/login", data={"key": str(n)})).status_code for n in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert (await client.post("/login", data={"key": "k"})).status_code == 429
    async with _client(gate, "192.0.2.2") as client:
        assert (await client.post("/login", data={"key": "k"})).status_code == 303


async def test_pages_of_other_origins_get_nothing_with_or_without_a_key(tmp_path: Path) -> None:
    for text in ("", "ADMIN_KEY=k\n"):
        gate = _gate(tmp_path, text)
        assert (await _websocket(gate, origin="https://evil.example"))["type"] == "websocket.close"
        async with _client(gate) as client:
            answer = await client.post("/login", headers={"origin": "http://127.0.0.1:3000"}, data={"key": "k"})
            assert answer.status_code == 403
            same = await client.get("/login", headers={"origin": _HOST})
            assert same.status_code in {200, 303}


async def test_without_admin_key_this_machine_alone_gets_in(tmp_path: Path) -> None:
    gate = _gate(tmp_path, "")
    async with _client(gate) as client:
        assert (await client.get("/")).text == "inside"
        assert (await client.get("/login")).status_code == 303
        assert (await client.get("/", headers={"x-forwarded-for": "192.0.2.1"})).status_code == 403
        assert (await client.get("/", headers={"host": "rebound.example"})).status_code == 403
    async with _client(gate, "192.0.2.1") as client:
        refused = await client.get("/")
        assert (refused.status_code, "Set ADMIN_KEY" in refused.text) == (403, True)


async def test_every_answer_keeps_the_browser_from_loading_from_elsewhere(tmp_path: Path) -> None:
    async with _client(_gate(tmp_path, "")) as client:
        policy = (await client.get("/")).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        (Settings(), True),
        (Settings(dashboard_host="::1"), True),
        (Settings(dashboard_host="0.0.0.0"), False),
        (Settings(dashboard_host="0.0.0.0", admin_key="k"), True),
    ],
)
def test_off_loopback_it_needs_admin_key(settings: Settings, starts: bool) -> None:
    assert (refusal(settings) is None) is starts
