"""``/v1/batches``: many calls in a file, answered in the background."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request

from app.api.check import bad
from app.api.files import found_file, limit_of, page, seconds_kept, stores
from app.api.ops import Caller, Here, Tenant  # noqa: TC001 - FastAPI reads the annotations
from app.api.parse import decode, read_body
from app.batch.folder import new_id
from app.batch.lines import ENDPOINTS
from app.errors import CallerError

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.ledger.batches import Batch

batches = APIRouter()
_WINDOW = re.compile(r"([1-9]\d{0,5})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 30 * 86400
_MOST_LISTED = 100
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512  # OpenAI's bounds of metadata
_TIMES = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
)
_OVER = ("failed", "completed", "expired", "cancelled")


@batches.post("/batches")
async def create_batch(request: Request, gateway: Here, caller: Caller) -> dict[str, Any]:
    """Begin a batch; what is wrong with its lines is told by its state."""
    body = decode(await read_body(request.receive, gateway.live.current.max_body_mb))
    batch = await _checked(body, gateway, caller.tenant)
    if caller.key is not None:
        batch = replace(batch, key_id=caller.key.id)
    _, store = stores(gateway)
    await store.add(batch)
    gateway.wake_batches()
    return shown(batch)


async def _checked(body: dict[str, Any], gateway: Gateway, tenant: str) -> Batch:
    from app.ledger.batches import Batch

    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str):
            raise CallerError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if body["endpoint"] not in ENDPOINTS:
        raise bad("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    window_s = _window_s(body["completion_window"])
    metadata = _metadata(body.get("metadata"))
    kept = body.get("output_expires_after")
    kept_s = None if kept is None else _kept_s(kept)
    file = await found_file(body["input_file_id"], gateway, tenant, "input_file_id")
    if file.purpose != "batch":
        raise bad("input_file_id", f"must be a file of the purpose batch, not {file.purpose}")
    now = int(time.time())
    return Batch(
        id=new_id("batch_"),
        tenant=tenant,
        endpoint=body["endpoint"],
        input_file_id=file.id,
        completion_window=body["completion_window"],
        created_at=now,
        expires_at=now + window_s,
        metadata=metadata,
        output_expires_s=kept_s,
    )


def _window_s(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    seconds = int(found.group(1)) * _UNIT_S[found.group(2)] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        raise bad("completion_window", "must be 24h, or another time such as 30m, 6h or 7d, at most 30d")
    return seconds


def _metadata(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > _MOST_PAIRS:
        raise bad("metadata", f"must be an object of at most {_MOST_PAIRS} strings")
    for key, value in given.items():
        if len(key) > _LONGEST_KEY or not isinstance(value, str) or len(value) > _LONGEST_VALUE:
            raise bad(f"metadata.{key[:_LONGEST_KEY]}", f"must be a string of at most {_LONGEST_VALUE} characters")
    return orjson.dumps(given).decode()


def _kept_s(kept: Any) -> int:
    if not isinstance(kept, dict) or kept.get("anchor") != "created_at":
        raise bad("output_expires_after.anchor", "must be created_at")
    return seconds_kept(kept.get("seconds"), "output_expires_after.seconds")


@batches.get("/batches")
async def list_batches(gateway: Here, tenant: Tenant, after: str | None = None, limit: int = 20) -> dict[str, Any]:
    """List batches, the newest first."""
    limit = limit_of(limit, _MOST_LISTED)
    _, store = stores(gateway)
    return page([shown(batch) for batch in await store.page(tenant, after, limit + 1)], limit)


@batches.get("/batches/{batch_id}")
async def get_batch(batch_id: str, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Return one batch with its progress."""
    return shown(await _found(batch_id, gateway, tenant))


@batches.post("/batches/{batch_id}/cancel")
async def cancel_batch(batch_id: str, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Have a batch end early; what was answered by then is in its files."""
    _, store = stores(gateway)
    batch = await _found(batch_id, gateway, tenant)
    if not await store.cancel(tenant, batch.id, int(time.time())):
        batch = await _found(batch_id, gateway, tenant)
        if batch.status in _OVER:
            raise CallerError(f"Cannot cancel a batch with status '{batch.status}'.", status=409, code="batch_is_over")
    gateway.wake_batches()
    return shown(await _found(batch_id, gateway, tenant))


async def _found(batch_id: str, gateway: Gateway, tenant: str) -> Batch:
    _, store = stores(gateway)
    batch = await store.get(tenant, batch_id)
    if batch is None:
        raise CallerError(
            f"No batch found with id '{batch_id[:64]}'.", status=404, param="id", fault="caller_unknown_batch"
        )
    return batch


def shown(batch: Batch) -> dict[str, Any]:
    """Return a batch in OpenAI's shape; what is not known yet is left out."""
    body: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": orjson.loads(batch.metadata) if batch.metadata else None,
    }
    known = {name: getattr(batch, name) for name in (*_TIMES, "output_file_id", "error_file_id")}
    body |= {name: value for name, value in known.items() if value is not None}
    return body | {"errors": orjson.loads(batch.errors)} if batch.errors else body
