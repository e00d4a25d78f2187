"""From bytes to an Ask: light checks by hand that name the field's path; what nobody here knows passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from app.api.check import CHECKS, bad
from app.call import Ask, Hints
from app.errors import CallerError

if TYPE_CHECKING:
    from app.call import Native
    from app.form import Form
    from app.settings import Settings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_DEEPEST = 200
"""orjson reads 1024 levels and writes 254: what cannot be written cannot be passed on."""
_DRAIN = 8
"""A body over the limit is read on to this many times the limit, so that the caller can hear why it is refused."""


class ClientGoneError(Exception):
    """The caller closed its connection."""


async def read_body(receive: Receive, limit_mb: float) -> bytes:
    """Return the request's body.

    Raises:
        CallerError: 413, it is larger than the limit.
        ClientGoneError: the caller left before it was complete.
    """
    limit = int(limit_mb * 1024 * 1024)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) <= limit:
            return body
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        if not message.get("more_body") or size > limit * _DRAIN:
            break
        message = await receive()
    if size > limit:
        raise CallerError(
            f"The request body is larger than {limit_mb:g} MB (MAX_BODY_MB).",
            status=413,
            code="request_too_large",
            fault="caller_too_large",
        )
    return b"".join(parts)


def decode(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        CallerError: 400, with what is wrong with it.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        told = "is empty" if not raw.strip() else f"is not valid JSON: {error}"
        raise CallerError(f"The request body {told}.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise CallerError("The request body must be a JSON object.", code="invalid_json")
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _deeper(body, _DEEPEST):
        raise CallerError(f"The request body nests more than {_DEEPEST} levels deep.", code="invalid_json")
    return body


def _deeper(body: dict[str, Any], levels: int) -> bool:
    """Whether arrays and objects nest deeper, looked at level by level."""
    level: list[Any] = [body]
    for _ in range(levels):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for each in inner for child in each if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def make_ask(
    endpoint: str,
    body: dict[str, Any],
    headers: Mapping[bytes, bytes],
    tenant: str,
    settings: Settings,
    request_id: str,
    native: Native | None = None,
    form: Form | None = None,
) -> Ask:
    """Check a body and make the Ask of it.

    Raises:
        CallerError: 400, with the path of the field that is wrong.
    """
    CHECKS[endpoint](body)
    return Ask(
        endpoint=endpoint,
        body=body,
        hints=_hints(body, headers),
        tenant=tenant,
        deadline=asyncio.get_running_loop().time() + _deadline_s(headers, settings.deadline_s),
        request_id=request_id,
        native=native,
        form=form,
    )


def _deadline_s(headers: Mapping[bytes, bytes], default_s: float) -> float:
    try:
        asked = float(headers.get(b"x-stainless-read-timeout", b"") or default_s)
    except ValueError:
        return default_s
    return min(asked, default_s) if asked > 0 else default_s


def _hints(body: dict[str, Any], headers: Mapping[bytes, bytes]) -> Hints:
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise bad("metadata", "must be an object")
    metadata = metadata or {}
    complexity = headers.get(b"x-sluice-complexity", b"").decode("latin-1") or metadata.get("sluice_complexity")
    return Hints(
        task=_header(headers, b"x-sluice-task") or _task(metadata),
        complexity=_complexity(complexity),
        session=_header(headers, b"x-sluice-session"),
        no_cache=_header(headers, b"x-sluice-no-cache") not in (None, "false", "0"),
        performance=_header(headers, b"x-sluice-performance") == "true",
        progress=(_header(headers, b"x-sluice-progress") or metadata.get("sluice_progress")) == "events",
    )


def _task(metadata: dict[str, Any]) -> str | None:
    task = metadata.get("sluice_task")
    if task is not None and not isinstance(task, str):
        raise bad("metadata.sluice_task", "must be a string")
    return task


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return value.decode("latin-1").strip() if value else None


def _complexity(told: Any) -> int | None:
    if told is None:
        return None
    try:
        value = int(told)
    except (TypeError, ValueError, OverflowError):
        value = 0
    if not 1 <= value <= 10:  # noqa: PLR2004 - the scale of complexity
        raise bad("x-sluice-complexity", "must be a whole number from 1 to 10")
    return value
