"""``/admin/calls`` and ``/admin/traffic``: what the ledger knows of the calls, without their content."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query

from app.api.admin import admit
from app.api.check import bad
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.errors import CallerError, SluiceError
from app.ledger import read
from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.gateway import Gateway
    from app.ledger.db import Database

_Found = TypeVar("_Found")
admin_calls = APIRouter(prefix="/admin", dependencies=[Depends(admit)])
_STEPS_MS = (60_000, 300_000, 900_000, 3_600_000, 21_600_000)
_MOST_STEPS = 96
"""Points that a chart can show; the step is the finest that needs no more."""
_LONGEST_MIN = 60 * 24 * 24


@admin_calls.get("/calls")
async def calls(
    gateway: Here,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: str | None = None,
    outcome: str | None = None,
    target: str | None = None,
    tenant: str | None = None,
    role: str | None = None,
) -> dict[str, Any]:
    """Return recent calls, newest first; ``next`` is what ``before`` is for those before them."""
    wanted = read.Wanted(limit, before, outcome or None, target or None, tenant or None, role or None)
    try:
        return await _read(read.recent(_database(gateway), wanted))
    except ValueError as error:
        raise bad("before", "must be what 'next' was") from error


@admin_calls.get("/calls/{name:path}")
async def call(name: str, gateway: Here) -> dict[str, Any]:
    """Return one call with its stages and attempts, by its id or its request id."""
    found = await _read(read.one(_database(gateway), name))
    if found is None:
        raise CallerError(
            f"The ledger has no call {name!r}. It may not be written yet: that takes a second.",
            status=404,
            code="call_not_found",
            param="name",
        )
    return found


@admin_calls.get("/traffic")
async def traffic(
    gateway: Here,
    minutes: Annotated[int, Query(ge=5, le=_LONGEST_MIN)] = 60,
    by: read.By = "target",
) -> dict[str, Any]:
    """Return calls over time, by target or role, and their figures together."""
    step_ms = next((step for step in _STEPS_MS if minutes * 60_000 <= step * _MOST_STEPS), _STEPS_MS[-1])
    until_ms = (int(time.time() * 1000) // step_ms + 1) * step_ms
    since_ms = until_ms - (minutes * 60_000 // step_ms) * step_ms
    return await _read(read.traffic(_database(gateway), since_ms, until_ms, step_ms, by))


def _database(gateway: Gateway) -> Database:
    if gateway.database is None:
        raise CallerError(
            "Nothing is kept: DATABASE_URL is off. Set it, or leave it empty for a file in DATA_DIR.",
            status=404,
            code="no_ledger",
        )
    return gateway.database


async def _read(reading: Awaitable[_Found]) -> _Found:
    try:
        return await reading
    except DatabaseUnavailableError as error:
        raise SluiceError(
            f"The ledger cannot be read: {error}.", status=503, code="ledger_unavailable", retry_after_s=1.0
        ) from error
