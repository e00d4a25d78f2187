"""Plays one answer, with its faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import http, shapes
from tests.upstream.answers import PrefillRefused, Reply, reply_to
from tests.upstream.faults import ERRORS, MIDDLE, Fault, Faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.upstream.http import Connection
    from tests.upstream.log import Attempt

_BLOCK = b"x" * 65536
_FOREVER = 1e9


class Cut(Exception):  # noqa: N818 - an event
    """A fault ended the connection; ``whole`` says whether the answer was whole by then."""

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole


@dataclass(slots=True)
class Exchange:
    """One request on its way to an answer."""

    conn: Connection
    attempt: Attempt
    faults: Faults
    body: dict[str, Any]
    changed: Callable[[], None]
    friendly: bool = False
    split: int = 0

    @property
    def anthropic(self) -> bool:
        """Whether it came on Anthropic's wire."""
        return "/messages" in self.attempt.path

    async def write(self, data: bytes) -> None:
        """Write bytes and count them."""
        self.conn.put(data)
        self.attempt.bytes += len(data)
        self.attempt.blocked = self.conn.blocked
        self.changed()
        await self.conn.drain()
        self.attempt.blocked = False

    async def open(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send the head of an answer."""
        self.attempt.status = status
        if self.faults.has("conclose"):
            headers.append(("connection", "close"))
        big = int(self.faults.number("bighead", 1024))
        if big:
            headers.append(("x-big", "x" * big * 1024))
        await self.write(http.head(status, headers))

    async def event(self, data: bytes) -> None:
        """Send one server-sent event as a write of its own, or in small pieces where the fault says so."""
        if self.faults.has("crlf"):
            data = data.replace(b"\n", b"\r\n")
        size = self.split or len(data)
        for at in range(0, len(data), size):
            await self.write(http.chunk(data[at : at + size]))

    async def say(self, value: Any) -> None:
        """Send one JSON value as an event."""
        if self.faults.has("orping"):
            await self.event(b": OPENROUTER PROCESSING\n\n")
        await self.event(b"data: " + orjson.dumps(value) + b"\n\n")

    def cut(self, *, reset: bool = False, whole: bool = False) -> Cut:
        """Close or reset the connection; raise what comes back."""
        if reset:
            self.conn.reset()
        else:
            self.conn.close()
        return Cut(whole=whole)


async def play(x: Exchange, answer: Callable[[Exchange], Awaitable[None]]) -> None:
    """Answer one request.

    Raises:
        Cut: a fault ended the answer, and the connection with it.
        ClientGone: the client left.
    """
    await _before(x)
    if (fault := x.faults.find(*ERRORS)) is not None:
        await fail(x, shapes.failure(fault))
    else:
        await _answer(x, answer)
    if x.faults.has("conclose"):
        raise x.cut(whole=True)


async def _answer(x: Exchange, answer: Callable[[Exchange], Awaitable[None]]) -> None:
    """Answer; a request of wrong types is refused, as a real backend would."""
    try:
        await answer(x)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as problem:
        if x.attempt.status:
            raise
        await fail(x, shapes.Failure(400, shapes.error(f"{type(problem).__name__}: {problem}")))


async def _before(x: Exchange) -> None:
    if x.faults.has("hang"):
        await x.conn.pause(None)
    if (late := x.faults.number("late", 1)) > 0:
        await x.conn.pause(late)
    if x.faults.find("rst", "close"):
        raise x.cut(reset=x.faults.has("rst"))
    if x.faults.has("endlesshead"):
        await x.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            await x.write(b"x-more: " + b"x" * 4096 + b"\r\n")


async def fail(x: Exchange, failure: shapes.Failure) -> None:
    """Send an error as a whole answer, in the shape of the wire it was asked on."""
    if x.anthropic and isinstance(failure.body, dict) and failure.body.get("type") != "error":
        failure = shapes.anthropic(failure)
    body = failure.body if isinstance(failure.body, bytes) else orjson.dumps(failure.body)
    await send(x, body, status=failure.status, headers=list(failure.headers), kind=failure.kind)


async def send(
    x: Exchange,
    body: bytes,
    *,
    status: int = 200,
    headers: list[tuple[str, str]] | None = None,
    kind: str = "application/json",
) -> None:
    """Send a whole answer with its length."""
    sizes = [("content-type", kind), ("content-length", str(len(body)))]
    await x.open(status, sizes + (headers or []))
    if body:
        await x.write(body)


async def answer_json(x: Exchange, value: Any) -> None:
    """Send a plain answer, slow or broken off in its middle where a fault says so."""
    if (slow := x.faults.number("slow", 1)) > 0:
        await x.conn.pause(slow)
    body = orjson.dumps(value)
    fault = x.faults.find(*_PLAIN)
    if fault is None:
        await send(x, body)
    else:
        await _PLAIN[fault.name](x, fault, body)


async def _half(x: Exchange, body: bytes, *, chunked: bool = False) -> None:
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))
    await x.open(200, [("content-type", "application/json"), framing])
    half = body[: len(body) // 2]
    await x.write(http.chunk(half) if chunked else half)


async def _plain_cut(x: Exchange, fault: Fault, body: bytes) -> None:
    await _half(x, body)
    raise x.cut(reset=fault.name == "cutrst")


async def _plain_stall(x: Exchange, _: Fault, body: bytes) -> None:
    await _half(x, body)
    await x.conn.pause(None)


async def _plain_eof(x: Exchange, _: Fault, body: bytes) -> None:
    await _half(x, body, chunked=True)
    await x.write(http.LAST_CHUNK)


async def _plain_bad(x: Exchange, _: Fault, body: bytes) -> None:
    await send(x, body[: len(body) // 2] + b"\x00}" + body[len(body) // 2 :])


async def _plain_error(x: Exchange, fault: Fault, _: bytes) -> None:
    await send(x, orjson.dumps(_middle_error(x, fault, None)))


async def _plain_drip(x: Exchange, fault: Fault, _: bytes) -> None:
    await x.open(200, [("content-type", "application/json"), ("transfer-encoding", "chunked")])
    while True:
        await x.write(http.chunk(b" "))
        await x.conn.pause(fault.number(200) / 1000)


async def _plain_endless(x: Exchange, _: Fault, body: bytes) -> None:
    await x.open(200, [("content-type", "application/json"), ("connection", "close")])
    await x.write(body[:-1] + b', "more": "')
    while True:
        await x.write(_BLOCK)


_PLAIN: dict[str, Callable[[Exchange, Fault, bytes], Awaitable[None]]] = {
    **dict.fromkeys(("cut", "cutrst"), _plain_cut),
    **dict.fromkeys(("ssemid", "ormid", "ollmid"), _plain_error),
    **dict.fromkeys(("drip", "dripbyte", "dripword"), _plain_drip),
    **dict.fromkeys(("endless", "longline"), _plain_endless),
    "stall": _plain_stall,
    "cuteof": _plain_eof,
    "bad": _plain_bad,
}


async def answer_chat(x: Exchange) -> None:
    """Answer a chat completion or a legacy completion, plain or as a stream."""
    legacy = "prompt" in x.body
    meta = shapes.Meta(str(x.body.get("model", "")), legacy=legacy)
    try:
        reply = reply_to(x.body, x.faults, friendly=x.friendly)
    except PrefillRefused:
        text = "This model does not support assistant message prefill: the conversation must end with a user message."
        await fail(x, shapes.Failure(400, shapes.error(text, param="messages")))
        return
    if x.body.get("stream") is True:
        await Stream(x, meta, reply).play()
        return
    value = shapes.plain(meta, reply, x.body.get("n") or 1, thought=x.faults.has("thought"))
    if not x.faults.has("nousage"):
        value["usage"] = shapes.usage_of(reply, cost=x.faults.has("cost"))
    if x.faults.has("xgroq"):
        value["x_groq"] = {"id": "req_1"}
    await answer_json(x, value)


def _middle_error(x: Exchange, fault: Fault, meta: shapes.Meta | None) -> dict[str, Any]:
    """Return what each backend says when it fails after it began."""
    chunk = shapes.piece(meta, {"content": ""}) if meta else {}
    match fault.name:
        case "ormid":
            if chunk:
                chunk["choices"][0] |= {"finish_reason": "error", "native_finish_reason": "error"}
            return {"error": shapes.openrouter_error(502)} | chunk
        case "groqmid":
            return chunk | {"x_groq": {"id": "req_1", "error": "over capacity"}}
        case "ollmid":
            return {"error": "llama runner process has terminated"}
        case _:
            return shapes.error("The server had an error while it was answering.", "server_error", "server_error")


class Stream:
    """One answer as server-sent events."""

    def __init__(self, x: Exchange, meta: shapes.Meta, reply: Reply) -> None:
        self.x, self.meta, self.reply = x, meta, reply
        options = x.body.get("stream_options") or {}
        self.wants_usage = options.get("include_usage") is True
        self.middle = [fault for fault in x.faults if fault.name in MIDDLE]
        x.split = int(x.faults.number("bytes", 7))

    async def play(self) -> None:
        """Send the whole stream."""
        x = self.x
        await x.open(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        await self._role()
        await self._slow_start()
        for delta in self._deltas():
            await self._middle()
            await self._content(delta)
        await self._middle(last=True)
        await self._finish()

    async def _slow_start(self) -> None:
        if (slow := self.x.faults.number("slow", 1)) > 0:
            await self.x.conn.pause(slow)

    def _deltas(self) -> Iterator[dict[str, Any]]:
        return shapes.deltas(self.reply, thought=self.x.faults.has("thought"))

    async def _role(self) -> None:
        if not self.meta.legacy and not self.x.faults.has("norole"):
            await self._chunk({"role": "assistant", "content": "", "refusal": None})

    async def _content(self, delta: dict[str, Any]) -> None:
        if (pace := self.x.faults.number("pace", 20, 20 if self.x.friendly else 0)) > 0:
            await self.x.conn.pause(pace / 1000)
        if self.x.faults.has("fullrole"):
            delta = {"role": "assistant"} | delta
        self.x.attempt.chunks += 1
        await self._chunk(delta)

    async def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        for index in range(self.x.body.get("n") or 1):
            value = shapes.piece(self.meta, delta, finish, index)
            if self.wants_usage:
                value["usage"] = None
            if finish and self.x.faults.has("xgroq"):
                value["x_groq"] = {"id": "req_1", "usage": shapes.usage_of(self.reply)}
            await self.x.say(self._varied(value))

    def _varied(self, value: dict[str, Any]) -> dict[str, Any]:
        if self.x.faults.has("varyids"):
            n = self.x.attempt.bytes
            value |= {"id": f"chunk-{n}", "created": 1_700_000_000 + n, "model": f"{self.meta.model}-{n}"}
        return value

    async def _middle(self, *, last: bool = False) -> None:
        """Play the faults whose turn has come; at the end those that asked for more chunks than there were."""
        sent = self.x.attempt.chunks
        for fault in [f for f in self.middle if last or sent >= _after(f)]:
            self.middle.remove(fault)
            await _MIDDLE[fault.name](self, fault)

    async def _finish(self) -> None:
        await self._chunk({}, self.reply.finish)
        if self.wants_usage and not self.x.faults.has("nousage"):
            usage = shapes.usage_of(self.reply, cost=self.x.faults.has("cost"))
            await self.x.say(self._varied(self.meta.envelope(chunk=True) | {"choices": [], "usage": usage}))
        await self._end()

    async def _end(self) -> None:
        if not self.x.faults.find("nodone", "nodoneopen"):
            await self.x.event(b"data: [DONE]\n\n")
        await self._end_of_body()

    async def _end_of_body(self) -> None:
        faults = self.x.faults
        if faults.has("linger") or faults.has("nodoneopen"):
            await self.x.conn.pause(faults.number("linger", _FOREVER, _FOREVER))
        await self.x.write(http.LAST_CHUNK)
        if faults.has("nodone"):
            raise self.x.cut(whole=True)

    async def cut(self, fault: Fault) -> None:
        raise self.x.cut(reset=fault.name == "cutrst")

    async def end(self, _: Fault) -> None:
        """End the body rightly, though nothing said that the answer was whole."""
        await self.x.write(http.LAST_CHUNK)
        raise self.x.cut()

    async def stall(self, _: Fault) -> None:
        await self.x.conn.pause(None)

    async def bad(self, _: Fault) -> None:
        await self.x.event(b'data: {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": " gar\n\n')

    async def error(self, fault: Fault) -> None:
        await self.x.say(_middle_error(self.x, fault, self.meta))
        await self.end(fault)

    async def silent(self, fault: Fault) -> None:
        """Ollama's own way: an empty chunk, then the end."""
        await self.x.say(shapes.piece(self.meta, {"role": "assistant", "content": ""}))
        await self.end(fault)

    async def drip(self, fault: Fault) -> None:
        piece = b" word" if fault.name == "dripbyte" else b": still here\n\n"
        if fault.name == "dripbyte":
            await self.x.event(b'data: {"id": "')
        while True:
            for byte in range(len(piece)):
                await self.x.event(piece[byte : byte + 1] if fault.name == "dripbyte" else piece)
                await self.x.conn.pause(fault.number(200) / 1000)

    async def drip_words(self, fault: Fault) -> None:
        while True:
            await self._content({"content": " more"})
            await self.x.conn.pause(fault.number(1000) / 1000)

    async def long_line(self, _: Fault) -> None:
        await self.x.event(b'data: {"id": "')
        while True:
            await self.x.write(http.chunk(_BLOCK))

    async def endless(self, _: Fault) -> None:
        while True:
            await self._content({"content": " " + "x" * 4096})


def _after(fault: Fault) -> float:
    """Return the number of content chunks before a fault; the parameter of a drip is its pace."""
    return 0 if fault.name.startswith("drip") else fault.number(0)


_MIDDLE: dict[str, Callable[[Stream, Fault], Awaitable[None]]] = {
    **dict.fromkeys(("cut", "cutrst"), Stream.cut),
    **dict.fromkeys(("ssemid", "ormid", "groqmid", "ollmid"), lambda stream, fault: stream.error(fault)),
    **dict.fromkeys(("drip", "dripbyte"), Stream.drip),
    "cuteof": Stream.end,
    "stall": Stream.stall,
    "bad": Stream.bad,
    "ollsilent": Stream.silent,
    "dripword": Stream.drip_words,
    "longline": Stream.long_line,
    "endless": Stream.endless,
}
