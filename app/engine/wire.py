"""OpenAI's JSON: chat and completion objects, their stream chunks, usage. Bytes out; no I/O."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from app.engine.chat import Piece

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """Return a value as one server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def comment(text: str) -> bytes:
    """Return an SSE comment, which clients skip; it keeps connections and proxies awake."""
    return b": " + text.encode() + b"\n\n"


def usage(prompt: int, completion: int, cached: int, reasoning: int = 0) -> dict[str, Any]:
    """Return OpenAI's usage object; all in tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


class ChatWire:
    """Writes one chat answer."""

    path = "chat"

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        head = orjson.dumps({**self._head, "object": "chat.completion.chunk"})[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":'
        self._begun: set[int] = set()
        self._calls: dict[int, int] = {}

    def chunks(self, choice: int, pieces: list[Piece], logprobs: Any, finish: str | None) -> bytes:
        """Return the events for new pieces of a choice, the role first, the finish reason last."""
        events = b""
        for piece in pieces:
            events += self._chunk(choice, self._delta(choice, piece), logprobs, None)
            logprobs = None
        if finish is not None:
            events += self._chunk(
                choice, b"{}" if choice in self._begun else b'{"role":"assistant","content":""}', logprobs, finish
            )
        elif logprobs:
            events += self._chunk(choice, b"{}", logprobs, None)
        return events

    def _chunk(self, choice: int, delta: bytes, logprobs: Any, finish: str | None) -> bytes:
        said = b"null" if finish is None else b'"' + finish.encode() + b'"'
        probable = b"null" if not logprobs else orjson.dumps({"content": logprobs, "refusal": None})
        parts = (self._before, b'%d,"delta":' % choice, delta, b',"logprobs":', probable, b',"finish_reason":', said)
        return b"".join((*parts, b"}]}\n\n"))

    def _delta(self, choice: int, piece: Piece) -> bytes:
        role = b""
        if choice not in self._begun:
            self._begun.add(choice)
            role = b'"role":"assistant",'
        if piece.call is not None:
            number = self._calls.get(choice, 0)
            self._calls[choice] = number + 1
            return b'{%b"tool_calls":[%b]}' % (role, orjson.dumps({"index": number, **piece.call}))
        name = b"content" if piece.kind == "content" else b"reasoning_content"
        return b'{%b"%b":%b}' % (role, name, orjson.dumps(piece.text))

    def usage_chunk(self, used: dict[str, Any]) -> bytes:
        """Return the stream's last event before [DONE], where the caller asked for it."""
        return event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": used})

    def whole(self, choices: list[dict[str, Any]], used: dict[str, Any]) -> bytes:
        """Return the plain body."""
        return orjson.dumps({**self._head, "object": "chat.completion", "choices": choices, "usage": used})

    def choice(self, index: int, pieces: list[Piece], logprobs: Any, finish: str) -> dict[str, Any]:
        """Return one choice of the plain body."""
        calls = [piece.call for piece in pieces if piece.call is not None]
        text = "".join(piece.text for piece in pieces if piece.kind == "content")
        thought = "".join(piece.text for piece in pieces if piece.kind == "reasoning")
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = calls
        if thought:
            message["reasoning_content"] = thought
        probable = None if logprobs is None else {"content": logprobs, "refusal": None}
        return {"index": index, "message": message, "logprobs": probable, "finish_reason": finish}


class TextWire:
    """Writes one ``/v1/completions`` answer."""

    path = "completions"

    def __init__(self, model: str) -> None:
        head = {"id": f"cmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._head = {**head, "object": "text_completion"}
        self._offsets: dict[int, int] = {}

    def chunks(self, choice: int, pieces: list[Piece], logprobs: Any, finish: str | None) -> bytes:
        """Return the event for new pieces of a choice."""
        return event({**self._head, "choices": [self._one(choice, pieces, logprobs, finish)]})

    def _one(self, index: int, pieces: list[Piece], logprobs: Any, finish: str | None) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        return {"index": index, "text": text, "logprobs": self._legacy(index, logprobs), "finish_reason": finish}

    def _legacy(self, choice: int, entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        """Return logprobs in the older form: parallel lists, offsets in characters of the answer."""
        if entries is None:
            return None
        offsets = []
        for entry in entries:
            offsets.append(self._offsets.get(choice, 0))
            self._offsets[choice] = offsets[-1] + len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
            "text_offset": offsets,
        }

    def usage_chunk(self, used: dict[str, Any]) -> bytes:
        """Return the stream's last event before [DONE], where the caller asked for it."""
        return event({**self._head, "choices": [], "usage": used})

    def whole(self, choices: list[dict[str, Any]], used: dict[str, Any]) -> bytes:
        """Return the plain body."""
        return orjson.dumps({**self._head, "choices": choices, "usage": used})

    def choice(self, index: int, pieces: list[Piece], logprobs: Any, finish: str) -> dict[str, Any]:
        """Return one choice of the plain body."""
        return self._one(index, pieces, logprobs, finish)
