"""Moderations, audio and images: small answers in OpenAI's shapes, and binary ones that say how long they are.

/audio/speech       PCM bytes, 1000 for each character of `input`; server-sent events with `stream_format: sse`
/audio/…            the file's size in words, as JSON, plain text or events, as `response_format` and `stream` say
/images/…           one image in base64; events with `stream`
"""

from __future__ import annotations

import base64
import email.parser
import email.policy
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import http

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.upstream.http import Request
    from tests.upstream.play import Exchange

BYTES_A_CHARACTER = 1000
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)
_PIECE = 16 * 1024


def body_of(request: Request) -> Any:
    """Return a body as JSON; the fields of a form where it is one, each file as its name and its size in bytes."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return request.json()
    head = f"content-type: {kind}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.raw)
    return dict(_field(part) for part in form.iter_parts())


def _field(part: Any) -> tuple[str, Any]:
    name = part.get_param("name", header="content-disposition")
    data: bytes = part.get_payload(decode=True)
    if part.get_filename() is not None:
        return name, {"filename": part.get_filename(), "bytes": len(data)}
    return name, data.decode()


def speech_of(text: str) -> bytes:
    """Return the sound of a text."""
    return bytes(range(250)) * (len(text) * BYTES_A_CHARACTER // 250)


async def speech(x: Exchange) -> None:
    """Answer with sound, in pieces."""
    sound = speech_of(str(x.body.get("input", "")))
    if x.body.get("stream_format") == "sse":
        delta = {"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()}
        usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        await _events(x, [delta, {"type": "speech.audio.done", "usage": usage}])
    else:
        await _pieces(x, "audio/mpeg", (sound[at : at + _PIECE] for at in range(0, len(sound), _PIECE)))


async def transcription(x: Exchange) -> None:
    """Answer with what was heard."""
    told = x.body.get("file") or {}
    text = f"I heard {told['bytes']} bytes of {told['filename']}."
    if x.body.get("stream") == "true":
        delta = {"type": "transcript.text.delta", "delta": text}
        await _events(x, [delta, {"type": "transcript.text.done", "text": text}])
    elif x.body.get("response_format") in {"text", "srt", "vtt"}:
        await _pieces(x, "text/plain; charset=utf-8", [text.encode()])
    else:
        await _pieces(x, "application/json", [orjson.dumps({"text": text})])


async def images(x: Exchange) -> None:
    """Answer with an image."""
    picture = base64.b64encode(b"\x89PNG" + bytes(2000)).decode()
    if x.body.get("stream") is True:
        done = {"type": "image_generation.completed", "b64_json": picture, "created_at": 1_760_000_000}
        await _events(x, [done])
    else:
        await _pieces(
            x, "application/json", [orjson.dumps({"created": 1_760_000_000, "data": [{"b64_json": picture}]})]
        )


def moderation(body: dict[str, Any]) -> dict[str, Any]:
    """Return the judgement of each input: flagged where it says so."""
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    return {"id": "modr-1", "model": body.get("model"), "results": [_judged(str(text)) for text in texts]}


def _judged(text: str) -> dict[str, Any]:
    bad = "violence" in text
    return {
        "flagged": bad,
        "categories": {name: bad and name == "violence" for name in _CATEGORIES},
        "category_scores": {name: 0.9 if bad and name == "violence" else 0.0 for name in _CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }


async def _events(x: Exchange, values: list[Any]) -> None:
    await _pieces(x, "text/event-stream", (b"data: " + orjson.dumps(value) + b"\n\n" for value in values))


async def _pieces(x: Exchange, kind: str, pieces: Iterable[bytes]) -> None:
    """Send pieces; one of the faults cut:K, stall:K and endless strikes after K of them."""
    if (slow := x.faults.number("slow", 1)) > 0:
        await x.conn.pause(slow)
    await x.open(200, [("content-type", kind), ("transfer-encoding", "chunked")])
    for piece in pieces:
        await _strike(x)
        x.attempt.chunks += 1
        await x.write(http.chunk(piece))
    while x.faults.has("endless"):
        await x.write(http.chunk(bytes(_PIECE)))
    await x.write(http.LAST_CHUNK)


async def _strike(x: Exchange) -> None:
    fault = x.faults.find("cut", "cutrst", "stall")
    if fault is None or x.attempt.chunks < fault.number(0):
        return
    if fault.name == "stall":
        await x.conn.pause(None)
    raise x.cut(reset=fault.name == "cutrst")
