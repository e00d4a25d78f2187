"""The endpoints that read and delete stored responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from app.api.history import HOW, Json, away, missing, store_of
from app.api.ops import Here, Tenant  # noqa: TC001 - FastAPI reads them
from app.errors import CallerError
from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.ledger.responses import ResponseStore, Stored

stored = APIRouter()
_MOST_LISTED = 100
_LISTED = 20


def _store(gateway: Gateway) -> ResponseStore:
    store = store_of(gateway, gateway.live.current)
    if store is None:
        raise CallerError(f"Responses are not stored here. {HOW}", status=404, code="responses_not_stored")
    return store


async def _stored(gateway: Gateway, tenant: str, response_id: str) -> Stored:
    try:
        found = await _store(gateway).find(tenant, response_id)
    except DatabaseUnavailableError as error:
        raise away(error) from error
    if found is None:
        raise missing(response_id, None)
    return found


@stored.get("/responses")
async def websocket_mode(tenant: Tenant) -> None:  # noqa: ARG001 - admission
    """Say that the WebSocket mode is not offered."""
    raise CallerError(
        "The WebSocket mode of /v1/responses is not supported: POST to it, with stream: true for events.",
        code="websocket_not_supported",
    )


@stored.post("/responses/compact")
async def compact(tenant: Tenant) -> None:  # noqa: ARG001 - admission
    """Say that compaction is not offered."""
    raise CallerError(
        "/v1/responses/compact is not supported: send the items that are to be kept.",
        status=404,
        code="unsupported_endpoint",
    )


@stored.get("/responses/{response_id}")
async def get_response(response_id: str, gateway: Here, tenant: Tenant) -> Json:
    """Return a stored response."""
    return (await _stored(gateway, tenant, response_id)).response


@stored.delete("/responses/{response_id}")
async def delete_response(response_id: str, gateway: Here, tenant: Tenant) -> Json:
    """Forget a stored response."""
    try:
        gone = await _store(gateway).delete(tenant, response_id)
    except DatabaseUnavailableError as error:
        raise away(error) from error
    if not gone:
        raise missing(response_id, None)
    return {"id": response_id, "object": "response", "deleted": True}


@stored.post("/responses/{response_id}/cancel")
async def cancel_response(response_id: str, gateway: Here, tenant: Tenant) -> None:
    """Say that nothing runs in the background."""
    await _stored(gateway, tenant, response_id)
    raise CallerError("Only a response in the background can be cancelled, and none is.", code="not_cancellable")


@stored.get("/responses/{response_id}/input_items")
async def input_items(response_id: str, request: Request, gateway: Here, tenant: Tenant) -> Json:
    """Return the items that a response was given, those of the responses that it followed first."""
    found = await _stored(gateway, tenant, response_id)
    before = await _store(gateway).before(tenant, found.previous_id) if found.previous_id else None
    items = [*(before or ()), *found.input]
    if request.query_params.get("order", "desc") == "desc":
        items.reverse()
    after = request.query_params.get("after")
    ids = [item.get("id") for item in items]
    if after in ids:
        items = items[ids.index(after) + 1 :]
    limit = _limit(request.query_params.get("limit"))
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _limit(told: str | None) -> int:
    if told is None:
        return _LISTED
    if not told.isdecimal() or not 1 <= int(told) <= _MOST_LISTED:
        raise CallerError(
            f"Invalid value: 'limit' must be a whole number from 1 to {_MOST_LISTED}.",
            code="invalid_value",
            param="limit",
        )
    return int(told)
