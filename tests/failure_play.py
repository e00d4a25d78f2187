"""Plays one row of the table through a gateway, and says what the caller got and what the upstream saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import httpx

    from tests.failure_table import Row
    from tests.upstream import Upstream
    from tests.upstream.log import Attempt

TEXT = "Is this answer whole?"
ANSWER = f"You said: {TEXT}\nThat is the whole of this scripted answer, given word by word."
ANSWERS = {ANSWER, f"Differently put: {ANSWER}"}
"""What tests.upstream says to TEXT, and what a model named `other` says."""


@dataclass(slots=True)
class Got:
    """What the caller got.

    Attributes:
        outcome: ``whole``, ``event``, a status, or ``WRONG: ...`` where it is none of what is allowed.
        wall_s: from the call to its end.
        models: every model that the answer or its chunks named.
    """

    outcome: str
    wall_s: float
    headers: httpx.Headers
    error: dict[str, Any] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    text: str = ""


@dataclass(slots=True)
class Played:
    """One call and the attempts it caused."""

    got: Got
    tries: list[Attempt]
    spares: list[Attempt]

    def starts(self) -> list[float]:
        return sorted(attempt.at for attempt in (*self.tries, *self.spares))


async def play(client: httpx.AsyncClient, up: Upstream, row: Row, *, stream: bool, spare: bool) -> Played:
    """Make the call of one row; every combination has models, and so lanes, of its own."""
    kind = f"{row.name.lower()}{'s' if stream else 'p'}{int(spare)}"
    model, spare_model = f"{kind}-{row.fault}", f"{kind}x-{row.spare}"
    chain = [f"{row.spare_backend}/{spare_model}"] if spare else []
    headers = {"x-stainless-read-timeout": str(row.deadline_s)} if row.deadline_s else {}
    got = await call(client, f"{row.backend}/{model}", stream=stream, headers=headers, models=chain)
    return Played(got, up.of(model), up.of(spare_model))


async def call(
    client: httpx.AsyncClient, model: str, *, stream: bool, headers: dict[str, str] | None = None, **more: Any
) -> Got:
    """Make one call and judge what comes back."""
    body = {"model": model, "messages": [{"role": "user", "content": TEXT}], "stream": stream, **more}
    begun = time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        raw = await response.aread()
    got = Got("", time.monotonic() - begun, response.headers)
    if response.status_code != 200:
        _judge_error(got, orjson.loads(raw), str(response.status_code))
    elif stream:
        _judge_stream(got, raw)
    else:
        _judge_plain(got, orjson.loads(raw))
    return got


def _judge_error(got: Got, body: dict[str, Any], outcome: str) -> None:
    got.error = body["error"]
    shaped = got.error.keys() == {"message", "type", "param", "code"} and got.error["message"]
    got.outcome = outcome if shaped else f"WRONG: an error of no shape {body}"


def _judge_plain(got: Got, body: dict[str, Any]) -> None:
    choice = body["choices"][0]
    got.text, got.models = choice["message"]["content"], {body["model"]}
    whole = got.text in ANSWERS and choice["finish_reason"] == "stop" and body["usage"]["completion_tokens"] > 0
    got.outcome = "whole" if whole else f"WRONG: {body}"


def _judge_stream(got: Got, raw: bytes) -> None:
    data = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    done = data[-1] == b"[DONE]"
    chunks = [orjson.loads(each) for each in (data[:-1] if done else data)]
    if "error" in chunks[-1]:
        _judge_error(got, chunks.pop(), "WRONG: an error and [DONE]" if done else "event")
    got.models = {chunk["model"] for chunk in chunks}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    got.text = "".join(choice["delta"].get("content") or "" for choice in choices)
    if got.error:
        return
    finish = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    one = len({(chunk["id"], chunk["created"]) for chunk in chunks}) == len(got.models) == 1
    whole = done and one and got.text in ANSWERS and finish == ["stop"]
    got.outcome = "whole" if whole else f"WRONG: {got.text!r} {finish} {done=} {one=}"
