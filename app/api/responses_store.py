"""What is kept of responses: ``store`` and ``previous_response_id``, and the endpoints that read and delete."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from app.api.ops import Here, Tenant  # noqa: TC001 - FastAPI reads them
from app.errors import CallerError, SluiceError
from app.ledger.db import DatabaseUnavailableError
from app.ledger.responses import ResponseStore, Stored
from app.wire.fields import a_string, new_id, objects

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.settings import Settings

Json = dict[str, Any]
log = logging.getLogger("sluice")
stored = APIRouter()
_MOST_LISTED = 100
_LISTED = 20
_HOW = "Set RESPONSES_STORE=true to have responses kept."


def store_of(gateway: Gateway, settings: Settings) -> ResponseStore | None:
    """Return the store; None where responses are not to be kept."""
    if not settings.responses_store or gateway.database is None:
        return None
    if gateway.responses is None:
        gateway.responses = ResponseStore(gateway.database)
    return gateway.responses


def _off(path: str) -> CallerError:
    return CallerError(
        f"Responses are not stored here, so '{path}' cannot be served. {_HOW}", code="responses_not_stored", param=path
    )


class History:
    """What one call has to do with stored responses.

    Attributes:
        stores: whether its response is kept.
        given: the items that the caller sent.
        body: the request with all that it refers to in its place.
    """

    def __init__(self, store: ResponseStore | None, tenant: str, settings: Settings) -> None:
        self._store = store
        self._tenant = tenant
        self._settings = settings
        self.stores = False
        self.given: list[Json] = []
        self.body: Json = {}

    async def read(self, body: Json) -> None:
        """Look up what a request refers to.

        Raises:
            CallerError: it is not there, or nothing is stored here.
        """
        previous = body.get("previous_response_id")
        if self._store is None:
            for name in ("previous_response_id", "store"):
                if body.get(name):
                    raise _off(name)
        self.body = body
        self.stores = self._store is not None and body.get("store") is not False
        self.given = _items(body.get("input"))
        refers = any(item.get("type") == "item_reference" for item in self.given)
        if previous is None and not (refers and self._store is not None):
            return
        self.given = await self._resolved()
        before = [] if previous is None else await self._before(a_string(previous, "previous_response_id"))
        self.body = {**body, "input": [*before, *self.given]}

    async def _before(self, previous: str) -> list[Json]:
        if self._store is None:
            raise _off("previous_response_id")
        try:
            items = await self._store.before(self._tenant, previous)
        except DatabaseUnavailableError as error:
            raise _away(error) from error
        if items is None:
            raise _missing(previous, "previous_response_id")
        return items

    async def _resolved(self) -> list[Json]:
        """Return the items that the caller sent, with those that were only referred to."""
        if self._store is None:
            return self.given
        found = []
        for index, item in enumerate(self.given):
            if item.get("type") != "item_reference":
                found.append(item)
                continue
            try:
                known = await self._store.item(self._tenant, a_string(item.get("id"), f"input[{index}].id"))
            except DatabaseUnavailableError as error:
                raise _away(error) from error
            if known is None:
                raise CallerError(
                    f"Item '{item.get('id')}' not found.", status=404, code="item_not_found", param=f"input[{index}]"
                )
            found.append(known)
        return found

    async def keep(self, response: Json) -> None:
        """Keep the response; where that cannot be done the call is served all the same."""
        if not self.stores or self._store is None:
            return
        try:
            await self._store.keep(self._tenant, self.given, response, self._settings.responses_keep_days)
        except DatabaseUnavailableError as error:
            log.warning("response %s is not stored: %s", response["id"], error)


def _items(given: Any) -> list[Json]:
    """Return what was sent as items, each with an id; what is wrong with it is told elsewhere."""
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    items = [item for _, item in objects(given, "input")] if isinstance(given, list) else []
    return [item if item.get("id") else {**item, "id": new_id("msg_")} for item in items]


def _missing(response_id: str, param: str | None) -> CallerError:
    code = "previous_response_not_found" if param else "response_not_found"
    return CallerError(f"Response with id '{response_id}' not found.", status=404, code=code, param=param)


def _away(error: Exception) -> SluiceError:
    return SluiceError(
        f"Stored responses cannot be read now: {error}",
        status=503,
        code="store_unavailable",
        fault="sluice_store",
        retry_after_s=1.0,
    )


# -- endpoints ---------------------------------------------------------------------------------------------------------


def _store(gateway: Gateway) -> ResponseStore:
    store = store_of(gateway, gateway.live.current)
    if store is None:
        raise CallerError(f"Responses are not stored here. {_HOW}", status=404, code="responses_not_stored")
    return store


async def _stored(gateway: Gateway, tenant: str, response_id: str) -> Stored:
    try:
        found = await _store(gateway).find(tenant, response_id)
    except DatabaseUnavailableError as error:
        raise _away(error) from error
    if found is None:
        raise _missing(response_id, None)
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
        raise _away(error) from error
    if not gone:
        raise _missing(response_id, None)
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
