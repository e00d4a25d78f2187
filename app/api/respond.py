"""Sending: JSON answers, errors in OpenAI's shape, headers that say who answered, and streams with keep-alives."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

import orjson

from app.api.frames import KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping
    from decimal import Decimal

    from app.call import Target
    from app.errors import SluiceError
    from app.http1.exchange import Caller
    from app.ledger.bill import Bill
    from app.trace import Trace

    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    HeaderList = list[tuple[bytes, bytes]]

KEEP_ALIVE_S = 5.0
_MOST_ATTEMPTS = 40
"""Attempts that a header names; a task over a long list makes hundreds, and proxies allow a head of 4 to 8 kB."""
_JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
_SSE: HeaderList = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
INTERNAL = "Sluice failed in an unexpected way; its log has the request id."


def server_timing(trace: Trace) -> bytes:
    """Return the ``Server-Timing`` header's value; the stages add up to the total."""
    stages = "".join(f"{name};dur={ns / 1e6:.3f}, " for name, ns in trace.stages.items())
    return f"{stages}total;dur={trace.total_ms():.3f}".encode()


def call_headers(trace: Trace, target: Target | None, bill: Bill | None = None) -> HeaderList:
    """Return the headers that tell what became of a call, as far as it is known."""
    known = [(b"server-timing", server_timing(trace)), *_prompt(trace), *_answered(trace, target), *_judged(trace)]
    return known if bill is None else known + _money(bill)


def _judged(trace: Trace) -> HeaderList:
    """Tell the verdict, the plan and what the checks found."""
    headers: HeaderList = []
    verdict, plan = trace.verdict, trace.plan
    if verdict is not None and verdict.kind is not None:
        headers.append((b"x-sluice-verdict", _latin(f"{verdict.kind}/{verdict.complexity}")))
    if plan is not None and plan.role is not None:
        headers.append((b"x-sluice-role", _latin(plan.role)))
    if plan is not None and plan.dropped_turns:
        headers.append((b"x-sluice-dropped-turns", _latin(plan.dropped_turns)))
    if trace.faults:
        headers.append((b"x-sluice-faults", _latin(",".join(trace.faults))))
    if trace.polished is not None:
        headers.append((b"x-sluice-polished", _latin(trace.polished)))
    return headers


def _answered(trace: Trace, target: Target | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield who answered, after which attempts, or that it was the cache."""
    if target is not None:
        yield b"x-sluice-target", _latin(target)
    if trace.cache is not None:
        yield b"x-sluice-cache", trace.cache.encode()
    if trace.attempts or (target is not None and trace.cache != "hit"):
        yield b"x-sluice-attempts", _attempts(trace, target)


def _prompt(trace: Trace) -> HeaderList:
    """Return the header that names the prompt file and its version, where the call went through one."""
    return [] if trace.task is None else [(b"x-sluice-prompt", _latin(f"{trace.task}@{trace.prompt_hash}"))]


def _money(bill: Bill) -> HeaderList:
    told = ((b"x-sluice-cost-usd", bill.cost_usd), (b"x-sluice-saved-usd", bill.saved_usd))
    return [(name, plain_usd(usd).encode()) for name, usd in told if usd is not None]


def plain_usd(usd: Decimal) -> str:
    """Return an amount in plain digits, to a pico-dollar."""
    text = f"{usd:.12f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attempts(trace: Trace, target: Target | None) -> bytes:
    tried = [f"{attempt.target}={attempt.result}" for attempt in trace.attempts[:_MOST_ATTEMPTS]]
    if len(trace.attempts) > _MOST_ATTEMPTS:
        tried.append(f"and {len(trace.attempts) - _MOST_ATTEMPTS} more")
    if target is not None and not any(attempt.result == "ok" for attempt in trace.attempts):
        tried.append(f"{target}=ok")
    return _latin(";".join(tried))


def _latin(value: object) -> bytes:
    """Return a header's value; what HTTP does not allow in one becomes a question mark."""
    text = str(value)
    if not text.isprintable():
        text = "".join(each if each.isprintable() else "?" for each in text)
    return text.encode("latin-1", "replace")


def performance(trace: Trace, target: Target, bill: Bill | None) -> dict[str, Any]:
    """Return the performance object: milliseconds by stage, who answered, and what it cost; null where unpriced."""
    attempts = [f"{each.target}={each.result}" for each in trace.attempts]
    return {
        **trace.split_ms(),
        "stages": trace.in_ms(),
        "target": str(target),
        "attempts": attempts,
        "faults": list(trace.faults),
        "cost_usd": _number(bill.cost_usd if bill is not None else None),
        "saved_usd": _number(bill.saved_usd if bill is not None else None),
    }


def _number(usd: Decimal | None) -> float | None:
    return None if usd is None else float(usd)


def dumps(body: Any) -> bytes:
    """Return a value as JSON."""
    return orjson.dumps(body)


async def send_json(send: Send, status: int, body: bytes, headers: HeaderList) -> None:
    """Send a whole JSON response."""
    headers = [_JSON, (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_headers(error: SluiceError) -> HeaderList:
    """Return the headers by which clients decide whether and when to try again."""
    headers: HeaderList = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    if error.final:
        headers.append((b"x-should-retry", b"false"))
    if error.status == 401:  # noqa: PLR2004 - RFC 9110 section 11.6.1 asks for it
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 413:  # noqa: PLR2004 - what is left of the body is not to be read
        headers.append((b"connection", b"close"))
    return headers


async def send_error(send: Send, error: SluiceError, headers: HeaderList) -> None:
    """Send an error in OpenAI's shape."""
    await send_json(send, error.status, orjson.dumps(error.body()), [*error_headers(error), *headers])


def completed(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Return a chat completion with every key that OpenAI's schema requires; the same object where none is missing."""
    missing: dict[str, Any] = {}
    if not body.get("id"):
        missing["id"] = f"chatcmpl-{time.time_ns():x}"
    if body.get("object") != "chat.completion":
        missing["object"] = "chat.completion"
    if not body.get("created"):
        missing["created"] = int(time.time())
    if not body.get("model"):
        missing["model"] = model
    choices = [_completed_choice(index, choice) for index, choice in enumerate(body["choices"])]
    if any(new is not old for new, old in zip(choices, body["choices"], strict=True)):
        missing["choices"] = choices
    return {**body, **missing} if missing else body


def _completed_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message") or {}
    if "index" in choice and "logprobs" in choice and "refusal" in message and "content" in message:
        return choice
    message = {"role": "assistant", "content": None, "refusal": None, **message}
    return {"index": index, "logprobs": None, **choice, "message": message}


class SSEWriter:
    """Writes a stream's response; fills silence with comments, before the answer as well.

    Attributes:
        started: whether status and headers are out: from then on an error can only be an event.
        last_s: when bytes were last sent, on the event loop's clock.
    """

    def __init__(
        self,
        send: Send,
        headers: Callable[[], HeaderList],
        keep_alive: bytes = KEEP_ALIVE,
        keep_alive_s: float = KEEP_ALIVE_S,
        caller: Caller | None = None,
    ) -> None:
        self._keep_alive = keep_alive
        self._keep_alive_s = keep_alive_s
        self._send = send
        self._headers = headers
        self._caller = caller
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.last_s = self._loop.time()
        self._timer = self._loop.call_later(keep_alive_s, self._tick)
        self._comment: asyncio.Task[None] | None = None
        self._closed = False
        self.started = False

    def _tick(self) -> None:
        due = self.last_s + self._keep_alive_s
        if self._loop.time() >= due and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._write_locked(self._keep_alive))
            due = self._loop.time() + self._keep_alive_s
        self._timer = self._loop.call_at(due, self._tick)

    async def write(self, data: bytes) -> None:
        """Send bytes of the body, after the headers if they are not out yet."""
        if not self.started or self._closed or self._lock.locked():
            await self._write_locked(data)
            return
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.last_s = self._loop.time()

    def silent_s(self) -> float:
        """Return how long nothing was sent."""
        return self._loop.time() - self.last_s

    def write_now(self, data: bytes) -> bool:
        """Send bytes at once where nothing has to be waited for, and tell whether that was so."""
        if not self.started or self._closed or self._caller is None or self._lock.locked():
            return False
        if not self._caller.write_now(data):
            return False
        self.last_s = self._loop.time()
        return True

    async def _write_locked(self, data: bytes) -> None:
        """Do so when nobody else is about it: a comment and the answer may begin the response at once."""
        async with self._lock:
            if self._closed:
                return
            await self._start()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self.last_s = self._loop.time()

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*_SSE, *self._headers()]})

    async def finish(self, data: bytes) -> None:
        """Send the last bytes and close at once."""
        self._timer.cancel()
        async with self._lock:
            self._closed = True
            await self._start()
            await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def close(self) -> None:
        """Stop the keep-alives."""
        self._closed = True
        self._headers = list  # not the call's any more, which refers to this: both are freed at once
        self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()
