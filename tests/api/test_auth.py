from __future__ import annotations

from typing import Any

import pytest

from app.api.auth import admit_admin, authenticate, presented_key
from app.errors import PolicyError
from app.ledger.keys import Keys
from app.settings import Settings
from tests.conftest import Start
from tests.upstream import Upstream

_KEYS = Settings(api_keys=("key-one", "schlüssel"))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer abc"}, b"abc"),
        ({b"authorization": b"bearer  abc "}, b"abc"),
        ({b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Basic abc"}, b""),
        ({b"authorization": b"Bearer "}, b""),
        ({}, b""),
    ],
)
def test_where_the_key_stands(headers: dict[bytes, bytes], key: bytes) -> None:
    assert presented_key(headers) == key


async def test_tenants_do_not_tell_their_key() -> None:
    one, _ = await authenticate({b"authorization": b"Bearer key-one"}, _KEYS, Keys())
    two, _ = await authenticate({b"x-api-key": "schlüssel".encode()}, _KEYS, Keys())
    assert one != two
    assert one.startswith("key-")
    assert "one" not in one


@pytest.mark.parametrize("key", [b"", b"key-on", b"key-one ", b"key-two", b"\xff", b"anonymous"])
async def test_a_wrong_key_is_401(key: bytes) -> None:
    with pytest.raises(PolicyError) as caught:
        await authenticate({b"authorization": b"Bearer " + key.replace(b" ", b"_")}, _KEYS, Keys())
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert not key or key.decode("latin-1") not in caught.value.message


@pytest.mark.parametrize("headers", [{}, {b"authorization": b"Bearer anything"}])
async def test_without_keys_anything_goes(headers: dict[bytes, bytes]) -> None:
    assert await authenticate(headers, Settings(), Keys()) == ("anonymous", None)
    with pytest.raises(PolicyError):
        await authenticate(headers, Settings(keys_required=True), Keys())


_LOCAL: dict[str, Any] = {"client": ("127.0.0.1", 1)}


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"127.0.0.1:8000"},
        {b"host": b"[::1]:8000"},
        {b"host": b"localhost", b"origin": b"http://localhost:3000"},
    ],
)
def test_this_machine_is_admin_where_there_is_no_key(headers: dict[bytes, bytes]) -> None:
    admit_admin(_LOCAL, headers, Settings())


@pytest.mark.parametrize(
    ("scope", "headers"),
    [
        ({"client": ("10.0.0.1", 1)}, {b"host": b"localhost"}),
        ({"client": None}, {b"host": b"localhost"}),
        ({}, {b"host": b"localhost"}),
        (_LOCAL, {b"host": b"localhost", b"x-forwarded-for": b"127.0.0.1"}),
        (_LOCAL, {b"host": b"localhost", b"forwarded": b"for=127.0.0.1"}),
        (_LOCAL, {b"host": b"localhost", b"x-real-ip": b"127.0.0.1"}),
        (_LOCAL, {b"host": b"evil.example"}),
        (_LOCAL, {}),
        (_LOCAL, {b"host": b"[::1"}),
        (_LOCAL, {b"host": b"localhost", b"origin": b"https://evil.example"}),
        (_LOCAL, {b"host": b"localhost", b"origin": b"null"}),
        (_LOCAL, {b"host": b"localhost", b"origin": b"http://[::1"}),
    ],
)
def test_strangers_are_no_admins(scope: dict[str, Any], headers: dict[bytes, bytes]) -> None:
    with pytest.raises(PolicyError) as caught:
        admit_admin(scope, headers, Settings())
    assert (caught.value.status, caught.value.code) == (403, "admin_forbidden")


def test_a_key_makes_an_admin_from_anywhere() -> None:
    settings = Settings(admin_key="secret")
    admit_admin({"client": ("10.0.0.1", 1)}, {b"authorization": b"Bearer secret"}, settings)
    with pytest.raises(PolicyError) as caught:
        admit_admin(_LOCAL, {b"host": b"localhost", b"authorization": b"Bearer wrong"}, settings)
    assert caught.value.status == 401


async def test_which_endpoints_ask_for_a_key(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nAPI_KEYS=k1\nADMIN_KEY=a1\n", up=up) as sluice:
        body = {"messages": [{"role": "user", "content": "x"}]}
        for path in ("/v1/chat/completions", "/v1/route", "/chat/completions"):
            refused = await sluice.client.post(path, json=body)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert (await sluice.client.post(path, json=body, headers={"x-api-key": "k1"})).status_code == 200
        assert (await sluice.client.get("/v1/models")).status_code == 401
        for path in ("/", "/health/live", "/health/ready", "/metrics"):
            assert (await sluice.client.get(path)).status_code == 200
        for key, status in (("k1", 401), ("a1", 200)):
            headers = {"authorization": f"Bearer {key}"}
            assert (await sluice.client.get("/admin/config", headers=headers)).status_code == status
        assert len(up.log) == 2
