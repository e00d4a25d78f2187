"""Files: kept on disk as they come, seen by their tenant only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.ledger.db import Database
from tests.batch.client import jsonl, line, upload
from tests.conftest import Running, Start
from tests.sdk import sdk
from tests.upstream import Upstream

_CUT = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nb'
_KEYS = "API_KEYS=one,two\n"
_ONE, _TWO = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))


async def opened(sluice: Running) -> None:
    database = sluice.gateway.database
    assert database is not None
    async with asyncio.timeout(20):
        while database.trouble is not None:  # noqa: ASYNC110 - it is opened in a thread
            await asyncio.sleep(0.01)


@pytest.fixture
async def kept(up: Upstream, start: Start, tmp_path: Path) -> AsyncIterator[Running]:
    async with start(f"DATA_DIR={tmp_path}/kept\nMAX_FILE_MB=2\n", up=up) as sluice:
        await opened(sluice)
        yield sluice


def _on_disk(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "kept" / "files").iterdir() if path.is_file()]


async def test_a_file_through_the_sdk(kept: Running, tmp_path: Path) -> None:
    content = jsonl([line("a")])
    async with sdk(kept) as ai:
        made = await ai.files.create(
            file=("in.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert (made.filename, made.bytes, made.purpose) == ("in.jsonl", len(content), "batch")
        assert made.expires_at == made.created_at + 3600
        other = await ai.files.create(file=b"\x00\xff", purpose="user_data")
        assert other.expires_at is None
        assert {each.id async for each in ai.files.list(limit=1)} == {made.id, other.id}
        assert [each.id async for each in ai.files.list(purpose="batch")] == [made.id]
        assert (await ai.files.retrieve(made.id)).id == made.id
        assert (await ai.files.content(made.id)).content == content
        assert (await ai.files.content(other.id)).content == b"\x00\xff"
        assert (await ai.files.delete(made.id)).deleted
    assert [path.name for path in _on_disk(tmp_path)] == [other.id]
    assert (await kept.client.get(f"/v1/files/{made.id}")).status_code == 404


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "other"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            "expires_after.seconds",
        ),
    ],
)
async def test_what_is_wrong_with_a_form_is_named_and_nothing_is_kept(
    kept: Running, tmp_path: Path, form: dict[str, str], param: str
) -> None:
    answer = await kept.client.post("/v1/files", files={"file": ("a", b"x")}, data=form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert _on_disk(tmp_path) == []


async def test_no_file_an_empty_file_and_no_form(kept: Running, tmp_path: Path) -> None:
    for files in ({"other": b"x"}, {"file": ("a", b"")}):
        answer = await kept.client.post("/v1/files", files=files, data={"purpose": "batch"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    for kind, body in (
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nb',
        ),
    ):
        answer = await kept.client.post("/v1/files", content=body, headers={"content-type": kind})
        assert answer.status_code == 400, answer.text
    assert _on_disk(tmp_path) == []


async def test_a_file_over_the_limit_is_refused_before_it_is_kept(kept: Running, tmp_path: Path) -> None:
    fits = await upload(kept.client, b"x" * (2 * 1024 * 1024))
    assert (fits.status_code, fits.json()["bytes"]) == (200, 2 * 1024 * 1024)
    refused = await upload(kept.client, b"x" * (2 * 1024 * 1024 + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "file_too_large")
    assert [path.name for path in _on_disk(tmp_path)] == [fits.json()["id"]]


async def test_lists_are_pages(kept: Running) -> None:
    for wrong in ("limit=0", "limit=10001", "order=up"):
        assert (await kept.client.get(f"/v1/files?{wrong}")).status_code == 400
    empty = (await kept.client.get("/v1/files")).json()
    assert (empty["data"], empty["has_more"]) == ([], False)


async def test_another_tenants_file_is_not_there(up: Upstream, start: Start, tmp_path: Path) -> None:
    async with start(f"{_KEYS}DATA_DIR={tmp_path}/kept\n", up=up) as sluice:
        await opened(sluice)
        mine = (await upload(sluice.client, b"x", headers=_ONE)).json()["id"]
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            answer = await sluice.client.request(method, f"/v1/files/{mine}{path}", headers=_TWO)
            assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")
        assert (await sluice.client.get("/v1/files", headers=_TWO)).json()["data"] == []
        body = {"input_file_id": mine, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        assert (await sluice.client.post("/v1/batches", json=body, headers=_TWO)).status_code == 404
        assert (await sluice.client.get(f"/v1/files/{mine}", headers=_ONE)).status_code == 200
        assert (await sluice.client.get(f"/v1/files/{mine}")).status_code == 401


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
async def test_without_a_database_it_says_what_to_set(sluice: Running, path: str) -> None:
    answer = await sluice.client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")
    assert "DATABASE_URL" in answer.json()["error"]["message"]


async def test_a_database_that_is_away_is_told(kept: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(kept.gateway.database, Database)
    monkeypatch.setattr(kept.gateway.database, "trouble", "gone")
    answer: Any = await kept.client.get("/v1/files")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
