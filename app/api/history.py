"""What one call of ``/v1/responses`` has to do with stored responses: ``store`` and ``previous_response_id``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from app.errors import CallerError, SluiceError
from app.ledger.db import DatabaseUnavailableError
from app.ledger.responses import ResponseStore
from app.wire.fields import a_string, new_id, objects

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.settings import Settings

Json = dict[str, Any]
log = logging.getLogger("sluice")
HOW = "Set RESPONSES_STORE=true to have responses kept."


def store_of(gateway: Gateway, settings: Settings) -> ResponseStore | None:
    """Return the store; None where responses are not to be kept."""
    if not settings.responses_store or gateway.database is None:
        return None
    if gateway.responses is None:
        gateway.responses = ResponseStore(gateway.database)
    return gateway.responses


def _off(path: str) -> CallerError:
    return CallerError(
        f"Responses are not stored here, so '{path}' cannot be served. {HOW}", code="responses_not_stored", param=path
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
            raise away(error) from error
        if items is None:
            raise missing(previous, "previous_response_id")
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
                raise away(error) from error
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


def missing(response_id: str, param: str | None) -> CallerError:
    """Return the error of a response that is not there; ``param`` is the field that names it."""
    code = "previous_response_not_found" if param else "response_not_found"
    return CallerError(f"Response with id '{response_id}' not found.", status=404, code=code, param=param)


def away(error: Exception) -> SluiceError:
    """Return the error of a store that cannot be read."""
    return SluiceError(
        f"Stored responses cannot be read now: {error}",
        status=503,
        code="store_unavailable",
        fault="sluice_store",
        retry_after_s=1.0,
    )
