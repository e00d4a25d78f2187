"""The upstream and the load in Python, for machines without a C compiler: the same arguments, the same output.

The figures are then those of this client as much as of the servers: only the ratios say something.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

_STAMP = re.compile(rb" t=(\d+) ")
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CHUNK: dict[str, object] = {
    "id": "chatcmpl-Bench0000000000000000000001", "object": "chat.completion.chunk", "created": 1763683200,
    "model": "bench-1-2026-01-01", "system_fingerprint": "fp_0123456789",
}  # fmt: skip
_WHOLE = json.dumps({
    **_CHUNK, "object": "chat.completion",
    "choices": [{
        "index": 0, "logprobs": None, "finish_reason": "stop",
        "message": {"role": "assistant", "refusal": None, "content": "The capital of France is Paris. " * 4},
    }],
    "usage": {"prompt_tokens": 187, "completion_tokens": 24, "total_tokens": 211},
}).encode()  # fmt: skip
_ANSWER = (
    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_WHOLE)}\r\n\r\n".encode() + _WHOLE
)


def _event(**fields: object) -> bytes:
    data = b"data: " + json.dumps({**_CHUNK, **fields}, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _content() -> bytes:
    delta = {"role": "assistant", "content": f" t={time.monotonic_ns()} "}
    return _event(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])


def _end(events: int) -> bytes:
    last = _event(choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    usage = {"prompt_tokens": 187, "completion_tokens": events, "total_tokens": 187 + events}
    return last + _event(choices=[], usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: int, gap_s: float) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            told = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(told[1]) if told else 0)
            await _answer(writer, head, body, events, gap_s)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


async def _answer(writer: asyncio.StreamWriter, head: bytes, body: bytes, events: int, gap_s: float) -> None:
    if head.startswith(b"GET"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    elif b'"stream":true' not in body:
        writer.write(_ANSWER)
    elif b'idle"' in body:
        writer.write(_HEAD + _content())
    else:
        writer.write(_HEAD)
        for _ in range(events):
            writer.write(_content())
            if b'paced"' in body:
                await asyncio.sleep(gap_s)
        writer.write(_end(events))


async def upstream(events: int = 100, gap_us: int = 10_000) -> None:
    """Serve on a free port of the loopback until killed."""
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, events, gap_us / 1e6), "127.0.0.1", 0, backlog=4096
    )
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


class _Load:
    """What the connections share."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port, self.request = port, request
        self.recording = False
        self.sent = self.ok = self.bad = self.broken = 0
        self.total: list[float] = []
        self.first: list[float] = []
        self.delay: list[float] = []

    async def one(self) -> None:
        """Send one request after the other over one connection."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
            try:
                while True:
                    await self._call(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                self.broken += self.recording
                writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic_ns()
        self.sent += 1
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        told = re.search(rb"\r\ncontent-length: *(\d+)", head)
        first = time.monotonic_ns()
        if told:
            await reader.readexactly(int(told[1]))
        else:
            first = await self._chunks(reader, first)
        if self.recording:
            good = b" 200 " in head[:16]
            self.ok, self.bad = self.ok + good, self.bad + (not good)
            self.total.append((time.monotonic_ns() - began) / 1e3)
            self.first.append((first - began) / 1e3)

    async def _chunks(self, reader: asyncio.StreamReader, first: int) -> int:
        seen = 0
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = await reader.readexactly(size + 2)
            now = time.monotonic_ns()
            seen = seen or now
            if self.recording:
                self.delay += [(now - int(stamp)) / 1e3 for stamp in _STAMP.findall(data)]
        await reader.readuntil(b"\r\n")
        return seen or first


def _at(values: list[float], share: float) -> float:
    return round(sorted(values)[int(share * (len(values) - 1) + 0.5)], 1) if values else 0.0


async def load(port: str, connections: str, seconds: str, warm: str, request: str) -> None:
    """Load a server and print what was seen, as load.c does."""
    state = _Load(int(port), Path(request).read_bytes())  # noqa: ASYNC240 - before anything is measured
    tasks = [asyncio.create_task(state.one()) for _ in range(int(connections))]
    await asyncio.sleep(float(warm))
    state.recording, began = True, time.monotonic()
    await asyncio.sleep(float(seconds))
    took = time.monotonic() - began
    for task in tasks:
        task.cancel()
    figures = {"calls_s": state.ok / took, "events_s": len(state.delay) / took}
    for name, values in (("", state.total), ("first_", state.first), ("delay_", state.delay)):
        figures |= {f"{name}p50": _at(values, 0.5), f"{name}p99": _at(values, 0.99)}
    print(json.dumps({**figures, "ok": state.ok, "bad": state.bad, "broken": state.broken, "sent": state.sent}))


def main() -> None:
    """Be one of the two."""
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    if sys.argv[1] == "upstream":
        run(upstream(*map(int, sys.argv[2:])))
    else:
        run(load(*sys.argv[2:]))


if __name__ == "__main__":
    main()
