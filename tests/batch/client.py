"""What tests of batches say to a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

CHAT = "/v1/chat/completions"
OVER = {"failed", "completed", "expired", "cancelled"}


def line(custom_id: str, text: str = "hello", *, url: str = CHAT, **body: Any) -> dict[str, Any]:
    """Return one line of an input."""
    body = {"model": "up/m", "messages": [{"role": "user", "content": text}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


async def upload(client: httpx.AsyncClient, data: bytes, purpose: str = "batch", **more: Any) -> httpx.Response:
    form = {"purpose": purpose} | more.pop("data", {})
    return await client.post("/v1/files", files={"file": ("in.jsonl", data)}, data=form, **more)


async def begin(client: httpx.AsyncClient, lines: Iterable[Any] | bytes, **more: Any) -> dict[str, Any]:
    """Upload lines and begin a batch; return the batch."""
    headers = more.pop("headers", {})
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = (await upload(client, data, headers=headers)).json()
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"} | more
    answer = await client.post("/v1/batches", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    batch: dict[str, Any] = answer.json()
    assert batch["status"] == "validating"
    return batch


async def over(client: httpx.AsyncClient, batch_id: str, within_s: float = 60, **more: Any) -> dict[str, Any]:
    """Return a batch once it is over."""
    async with asyncio.timeout(within_s):
        while True:
            batch: dict[str, Any] = (await client.get(f"/v1/batches/{batch_id}", **more)).json()
            if batch["status"] in OVER:
                return batch
            await asyncio.sleep(0.02)


async def rows(client: httpx.AsyncClient, file_id: str) -> list[dict[str, Any]]:
    """Return the lines of an output."""
    content = await client.get(f"/v1/files/{file_id}/content")
    assert content.status_code == 200, content.text
    return [json.loads(each) for each in content.content.splitlines()]


def said(row: dict[str, Any]) -> str:
    text: str = row["response"]["body"]["choices"][0]["message"]["content"]
    return text
