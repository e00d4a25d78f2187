"""Talking to the Sluice that the settings describe, as its callers do: over HTTP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.settings import Settings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on, and how one's own machine is reached that listens on them."""


class RemoteError(Exception):
    """Sluice does not answer, or answers with an error; the message is for a person."""


@dataclass(slots=True)
class Reply:
    """What a streamed call brought.

    Attributes:
        first_ms: until the first text; None where none came.
        total_ms: until the end.
        performance: Sluice's own account of the call; empty where there was none.
        usage: OpenAI's usage object; empty where there was none.
    """

    text: str = ""
    first_ms: float | None = None
    total_ms: float = 0.0
    performance: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    headers: httpx.Headers = field(default_factory=httpx.Headers)


def address(settings: Settings) -> str:
    """Return the root of the Sluice that these settings start."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def key_of(settings: Settings, key: str | None) -> str:
    """Return the key to call with: the one that was given, else the first of the settings'."""
    return key or next(iter(settings.api_keys), "unused")


def client(url: str, key: str) -> httpx.AsyncClient:
    """Return a client for calls; a local model may have to be downloaded first, so it waits as long as it takes."""
    headers = {"authorization": f"Bearer {key}", "x-sluice-performance": "true"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=httpx.Timeout(None, connect=5))


async def streamed(http: httpx.AsyncClient, body: dict[str, Any], reply: Reply) -> AsyncIterator[str]:
    """Make a streamed chat call; yield its texts and fill in the reply.

    Raises:
        RemoteError: with what the caller is told.
    """
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            reply.headers = answer.headers
            if answer.is_error:
                raise RemoteError(_message(await answer.aread()))
            async for line in answer.aiter_lines():
                for text in _texts(line, reply):
                    reply.first_ms = reply.first_ms or (time.perf_counter() - began) * 1000
                    reply.text += text
                    yield text
    except httpx.ConnectError as error:
        raise RemoteError(f"No Sluice answers at {http.base_url}: start it with scripts/serve.") from error
    except httpx.TransportError as error:
        raise RemoteError(f"The connection broke: {error or type(error).__name__}") from error
    finally:
        reply.total_ms = (time.perf_counter() - began) * 1000


def _texts(line: str, reply: Reply) -> list[str]:
    """Return the texts of one line of an event stream; keep what it tells beside them."""
    if not line.startswith("data: ") or line == "data: [DONE]":
        return []
    chunk = orjson.loads(line[6:])
    if chunk.get("error"):
        raise RemoteError(chunk["error"]["message"])
    reply.performance = chunk.get("performance") or reply.performance
    reply.usage = chunk.get("usage") or reply.usage
    deltas = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    return [delta["content"] for delta in deltas if delta.get("content")]


def _message(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return raw.decode(errors="replace")[:200]


async def whole(http: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
    """Make a streamed chat call and return all of it.

    Raises:
        RemoteError: with what the caller is told.
    """
    reply = Reply()
    async for _ in streamed(http, body, reply):
        await asyncio.sleep(0)
    return reply
