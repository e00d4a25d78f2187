"""``GET /v1/savings``: the ledger added up, everybody's for the operator, its own for a tenant."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.api import auth
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.errors import CallerError, PolicyError, SluiceError
from app.gateway import Gateway  # noqa: TC001 - FastAPI reads it
from app.ledger.db import DatabaseUnavailableError
from app.ledger.savings import Asked, By, savings

money = APIRouter()


@money.get("/savings")
async def get_savings(
    request: Request,
    gateway: Here,
    by: By = "target",
    days: Annotated[float | None, Query(gt=0, le=36_500)] = None,
) -> dict[str, Any]:
    """Return what calls cost, what the baseline would have cost, and what was saved."""
    if gateway.database is None:
        raise CallerError("Nothing is kept: DATABASE_URL is off.", status=404, code="no_ledger")
    settings = gateway.live.current
    asked = Asked(by, days, await _whose(request, gateway), settings.baseline)
    try:
        return await savings(gateway.database, asked, gateway.prices, int(time.time() * 1000))
    except DatabaseUnavailableError as error:
        raise SluiceError(
            f"The ledger cannot be read now: {error}", status=503, code="ledger_unavailable", retry_after_s=5
        ) from error


async def _whose(request: Request, gateway: Gateway) -> str | None:
    """Return whose calls may be seen: None for everybody's, where an admin asks.

    Raises:
        PolicyError: the caller is neither an admin nor a tenant.
    """
    headers, settings = dict(request.scope["headers"]), gateway.live.current
    known = bool(auth.presented_key(headers)) and bool(settings.api_keys or gateway.keys.any)
    if not known or settings.admin_key is not None:
        try:
            auth.admit_admin(request.scope, headers, settings)
        except PolicyError:
            pass
        else:
            return None
    return (await auth.authenticate(headers, settings, gateway.keys)).tenant
