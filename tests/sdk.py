"""Calls through the OpenAI SDK, with the headers that came along."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    from tests.conftest import Running

ROLES = (
    "MODEL_SMALL=up/small\nMODEL_MEDIUM=up/medium\nMODEL_LARGE=up/large\nMODEL_CODE=up/code\nMODEL_POLISH=up/polish\n"
)
"""Every role that a chat call may take, behind the scripted upstream."""


@dataclass(frozen=True, slots=True)
class Said:
    """A plain answer."""

    headers: Mapping[str, str]
    body: ChatCompletion

    @property
    def text(self) -> str:
        return self.body.choices[0].message.content or ""

    @property
    def target(self) -> str:
        return self.headers["x-sluice-target"]


@contextlib.asynccontextmanager
async def sdk(sluice: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    plain = openai.DefaultAsyncHttpxClient(verify=False, trust_env=False)  # no certificates to load: 50 ms less
    async with openai.AsyncOpenAI(
        base_url=sluice.url, api_key="any", max_retries=0, timeout=20, http_client=plain
    ) as client:
        yield client


async def say(sluice: Running, text: str = "hello there", hints: dict[str, str] | None = None, **more: Any) -> Said:
    """Make a plain call; hints are ``x-sluice-…`` headers without their beginning."""
    headers = {f"x-sluice-{name}": value for name, value in (hints or {}).items()}
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    async with sdk(sluice) as client:
        raw = await client.chat.completions.with_raw_response.create(extra_headers=headers, **body)
        return Said(raw.headers, raw.parse())


async def stream(
    sluice: Running, text: str = "hello there", **more: Any
) -> tuple[Mapping[str, str], list[ChatCompletionChunk]]:
    """Make a streamed call; return its headers and all chunks."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": True, **more}
    async with sdk(sluice) as client:
        raw = await client.chat.completions.with_raw_response.create(**body)
        return raw.headers, [chunk async for chunk in raw.parse()]


def streamed_text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
