"""Every backend's way of saying no, turned into one BackendError that keeps status, message, type and code."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_BY_STATUS = {
    401: Reason.DEAD_KEY,
    402: Reason.DEAD_KEY,
    403: Reason.DEAD_KEY,
    404: Reason.MODEL_MISSING,
    408: Reason.SERVER_ERROR,
    409: Reason.SERVER_ERROR,
    413: Reason.TOO_LARGE,
    425: Reason.SERVER_ERROR,
    429: Reason.RATE_LIMIT,
    498: Reason.OVERLOADED,  # Groq: flex capacity exceeded
    503: Reason.OVERLOADED,
    529: Reason.OVERLOADED,  # Anthropic: overloaded
}
_CONTEXT = re.compile(
    r"context.{0,3}length|context.{0,3}window|maximum (context|number of tokens)|too many (input )?tokens"
    r"|prompt is too long|(exceed|larger|longer).{0,60}(context|token limit|maximum.{0,20}tokens)",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content.?(filter|policy|management)|responsible.?ai|moderation|flagged|safety (system|setting)|\bblocked by\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,9}(\.\d*)?", re.ASCII)
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached"}


def from_response(backend: str, status: int, headers: Mapping[str, str], raw: bytes) -> BackendError:
    """Read an HTTP error of any dialect."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = _plain_text(backend, status, raw)
    error = from_body(backend, body, status)
    error.retry_after_s = retry_after_s(headers)
    return error


def from_body(backend: str, body: Any, status: int = 502) -> BackendError:
    """Read an error body: OpenAI's object, OpenRouter's, Gemini's list, Cloudflare's envelope, Ollama's string.

    ``status`` is that of the response; an error that came inside a 200 is a 502 unless it names its own.
    """
    told = _told(body)
    own = told.get("code")
    if isinstance(own, int) and 400 <= own <= 599:  # noqa: PLR2004 - HTTP's range of errors
        status = own
    message = str(told.get("message") or "") or f"{backend} answered {status} without a message."
    code = None if own is None else str(own)
    return BackendError(
        _reason(status, code, message, told),
        message,
        status=status,
        type=str(told.get("type") or _TYPES.get(status) or "server_error"),
        code=code,
        param=told.get("param") if isinstance(told.get("param"), str) else None,
    )


def is_error(body: Any) -> bool:
    """Whether a body that came with a 200 is an error all the same; no answer is anything but an object."""
    if not isinstance(body, dict):
        return True
    return (
        bool(body.get("error"))
        or (body.get("success") is False)
        or (bool(body.get("errors")) and "choices" not in body)
    )


def _told(body: Any) -> dict[str, Any]:
    """Find the part that tells: an object with message, type, code and param, as far as there are any."""
    if isinstance(body, list):
        return _told(body[0]) if body else {}
    if isinstance(body, str):
        return {"message": body}
    if not isinstance(body, dict):
        return {}
    error = body.get("error") or body.get("errors") or body.get("detail")
    if isinstance(error, dict):
        return error
    if error:
        return _told(error)
    return {"message": body.get("message") or body.get("msg"), "type": body.get("type"), "code": body.get("code")}


def _plain_text(backend: str, status: int, raw: bytes) -> dict[str, Any]:
    text = re.sub(r"<[^>]*>|\s+", " ", raw[:4096].decode("utf-8", "replace"))
    text = re.sub(r" +", " ", text).strip()[:300]
    return {"error": {"message": f"{backend} answered {status}: {text}" if text else ""}}


def _reason(status: int, code: str | None, message: str, told: dict[str, Any]) -> Reason:
    if code in _QUOTA_CODES or str(told.get("type")) in _QUOTA_CODES:
        return Reason.DEAD_KEY
    if code == "rate_limit_exceeded":
        return Reason.RATE_LIMIT
    if status in {400, 413, 422} and (code == "context_length_exceeded" or _CONTEXT.search(message)):
        return Reason.CONTEXT_LENGTH
    if status in {400, 403} and _FILTER.search(f"{code} {told.get('type')} {message} {told.get('metadata')}"):
        return Reason.CONTENT_FILTER
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Reason.SERVER_ERROR if status >= 500 else Reason.INVALID  # noqa: PLR2004 - HTTP's boundary


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date, RFC 9110 section 10.2.3), in seconds."""
    try:
        ms = headers.get("retry-after-ms", "")
        if _NUMBER.fullmatch(ms.strip()):
            return float(ms) / 1000
        value = headers.get("retry-after")
        if value is None:
            return None
        if _NUMBER.fullmatch(value.strip()):
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
