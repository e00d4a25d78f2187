"""The JSON that goes over the wire: OpenAI's shapes, and each backend's way of saying that it failed."""

from __future__ import annotations

import base64
import struct
import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.upstream.answers import Call, Reply, text_of, vector, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.upstream.faults import Fault

_numbers = count(1)
_Told = tuple[str, str | None, str]  # type, code, message
_STATUS_TYPES: dict[int, _Told] = {
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_quota", "insufficient_credits", "This account has no credits left."),
    403: ("permission_error", "permission_denied", "This key may not use this model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("server_error", "timeout", "The request timed out."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable", "The request could not be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
}
_KINDS: dict[str, _Told] = {
    "ctx": ("invalid_request_error", "context_length_exceeded", "This model's maximum context length is 4096 tokens."),
    "filter": ("invalid_request_error", "content_filter", "The prompt was filtered by the content management policy."),
    "mod": ("moderation_error", "moderation_blocked", "The input was flagged by moderation: violence."),
    "quota": ("insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
}
_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"


@dataclass(slots=True)
class Meta:
    """What is the same on every chunk of an answer."""

    model: str
    legacy: bool = False
    number: int = field(default_factory=lambda: next(_numbers))
    created: int = field(default_factory=lambda: int(time.time()))

    def envelope(self, *, chunk: bool = False) -> dict[str, Any]:
        """Return what stands around the choices; a legacy completion and its chunks look the same."""
        kind = "text_completion" if self.legacy else "chat.completion" + ".chunk" * chunk
        made = f"{'cmpl' if self.legacy else 'chatcmpl'}-scripted{self.number:08d}"
        return {"id": made, "object": kind, "created": self.created, "model": self.model}


@dataclass(frozen=True, slots=True)
class Failure:
    """A whole answer that is an error."""

    status: int
    body: bytes | dict[str, Any] | list[Any]
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"


def usage_of(reply: Reply, *, cost: bool = False) -> dict[str, Any]:
    """Return the usage object, in words counted as tokens; ``cost`` adds OpenRouter's cost in USD."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    reasoning = len(words(reply.reasoning or ""))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    if cost:
        usd = round(prompt * 1e-6 + completion * 2e-6, 9)
        usage |= {"cost": usd, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}
    return usage | reply.usage


def error(message: str, kind: str = "invalid_request_error", code: Any = None, param: Any = None) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(fault: Fault) -> Failure:
    """Return the whole answer of an error fault."""
    return _FAILURES[fault.name](fault)


def _status(fault: Fault) -> Failure:
    status = int(fault.arg)
    default = (
        ("server_error", None, "The server had an error.") if status >= 500 else ("invalid_request_error", None, "")
    )
    kind, code, message = _KINDS.get(fault.kind) or _STATUS_TYPES.get(status, default)
    headers = (("retry-after", fault.retry_after),) if fault.retry_after else ()
    return Failure(status, error(message or f"Refused with status {status}.", kind, code), headers)


_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error",
}  # fmt: skip
_LONG = "prompt is too long: 210000 tokens > 200000 maximum"


def anthropic(failure: Failure) -> Failure:
    """Return a failure in the shape of Anthropic's wire."""
    told = failure.body.get("error", {}) if isinstance(failure.body, dict) else {}
    message = _LONG if told.get("code") == "context_length_exceeded" else told.get("message", "Failed.")
    kind = _ANTHROPIC.get(failure.status, "api_error" if failure.status >= 500 else "invalid_request_error")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}
    return Failure(failure.status, body, failure.headers)


def _openrouter(fault: Fault) -> Failure:
    return Failure(200, {"error": openrouter_error(int(fault.number(502))), "user_id": "user_1"})


def openrouter_error(code: int) -> dict[str, Any]:
    """Return OpenRouter's error object, whose code is an int."""
    return {"code": code, "message": "Provider returned error", "metadata": {"provider_name": "Scripted"}}


def _gemini(fault: Fault) -> Failure:
    status = int(fault.number(429))
    name = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(status, "INTERNAL")
    message = "You exceeded your current quota." if status == 429 else "The request failed."
    return Failure(status, [{"error": {"code": status, "message": message, "status": name}}])


def _cloudflare(fault: Fault) -> Failure:
    status = int(fault.number(429))
    text = "AiError: capacity temporarily exceeded, please try again."
    return Failure(
        status, {"result": None, "success": False, "errors": [{"code": 3040, "message": text}], "messages": []}
    )


def _ollama(fault: Fault) -> Failure:
    return Failure(int(fault.number(500)), {"error": "llama runner process has terminated"})


def _fastapi(fault: Fault) -> Failure:
    detail = [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]
    return Failure(int(fault.number(422)), {"detail": detail})


_FAILURES: dict[str, Callable[[Fault], Failure]] = {
    "status": _status,
    "orerr": _openrouter,
    "gemerr": _gemini,
    "cferr": _cloudflare,
    "ollerr": _ollama,
    "dtlerr": _fastapi,
    "htmlerr": lambda fault: Failure(int(fault.number(502)), _HTML, kind="text/html"),
    "txterr": lambda fault: Failure(int(fault.number(500)), b"upstream connect error", kind="text/plain"),
    "empty": lambda _: Failure(200, b""),
    "badjson": lambda _: Failure(200, b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess'),
}


def _tool_call(index: int, call: Call, *, thought: bool) -> dict[str, Any]:
    shape = {"id": f"call_{index}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return shape | ({"extra_content": {"google": {"thought_signature": "c2lnbmVk"}}} if thought else {})


def plain(meta: Meta, reply: Reply, choices: int = 1, *, thought: bool = False) -> dict[str, Any]:
    """Return the whole answer of a plain call, without usage."""
    if meta.legacy:
        made = {"text": reply.content or "", "logprobs": None, "finish_reason": reply.finish}
        return meta.envelope() | {"choices": [{"index": n} | made for n in range(choices)]}
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = [_tool_call(n, call, thought=thought) for n, call in enumerate(reply.calls)]
    choice: dict[str, Any] = {"message": message, "logprobs": None, "finish_reason": reply.finish}
    return meta.envelope() | {"choices": [{"index": n} | choice for n in range(choices)]}


def piece(meta: Meta, delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    """Return one chunk of a stream."""
    if meta.legacy:
        choice = {"index": index, "text": delta.get("content") or "", "logprobs": None, "finish_reason": finish}
        return meta.envelope(chunk=True) | {"choices": [choice]}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return meta.envelope(chunk=True) | {"choices": [choice]}


def deltas(reply: Reply, *, thought: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what a stream says, a word or a fragment of arguments each."""
    for key, text in (("reasoning_content", reply.reasoning), ("refusal", reply.refusal), ("content", reply.content)):
        yield from ({key: word} for word in words(text or ""))
    for index, call in enumerate(reply.calls):
        first: dict[str, Any] = _tool_call(index, Call(call.name, ""), thought=thought)
        yield {"tool_calls": [{"index": index} | first]}
        size = max(1, len(call.arguments) // 3)
        for at in range(0, len(call.arguments), size):
            yield {"tool_calls": [{"index": index, "function": {"arguments": call.arguments[at : at + size]}}]}


_MOST_DIMENSIONS = 8192


def embeddings(body: dict[str, Any], *, always: Fault | None = None) -> dict[str, Any]:
    """Return the answer to an embeddings call; 16 dimensions unless asked otherwise.

    Floats or base64 as asked, or always ``floats`` or ``coded`` where that is its fault.

    Raises:
        ValueError: more dimensions than any model has.
    """
    if (body.get("dimensions") or 0) > _MOST_DIMENSIONS:
        raise ValueError(f"dimensions must be at most {_MOST_DIMENSIONS}")
    given = body.get("input", "")
    many = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    texts = [text_of(one) or str(one) for one in many]
    vectors = [vector(text, body.get("dimensions") or 16) for text in texts]
    coded = body.get("encoding_format") == "base64" if always is None else always.name == "coded"
    data = [{"object": "embedding", "index": n, "embedding": _base64(v) if coded else v} for n, v in enumerate(vectors)]
    tokens = sum(len(text.split()) for text in texts)
    return {
        "object": "list",
        "data": data,
        "model": str(body.get("model", "")),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def model_card(name: str) -> dict[str, Any]:
    """Return one entry of the list of models."""
    return {"id": name, "object": "model", "created": 1_760_000_000, "owned_by": "scripted"}
