"""``/admin/parity``: how tests of parity stand, and arming a role again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request

from app.api.admin import admit
from app.api.check import bad
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.api.parse import decode, read_body
from app.errors import CallerError, SluiceError
from app.ledger.db import DatabaseUnavailableError
from app.parity.report import as_json

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.ledger.db import Database

admin_parity = APIRouter(prefix="/admin/parity", dependencies=[Depends(admit)])


@admin_parity.get("")
async def show(gateway: Here) -> dict[str, Any]:
    """Return every test with its bounds, what shadows cost today, and the newest decisions."""
    from app.ledger import parity

    database = _database(gateway)
    today = datetime.now(UTC).date().isoformat()
    try:
        return as_json(
            await parity.standings(database),
            await parity.spent(database, today),
            gateway.live.current.shadow_usd_per_day,
            await parity.events(database),
        )
    except DatabaseUnavailableError as error:
        raise _away(str(error)) from error


@admin_parity.post("/rearm")
async def rearm(request: Request, gateway: Here) -> dict[str, Any]:
    """Put a role that was set back (``{"role": "analysis"}``) in use again, within a second; its tests begin anew."""
    from app.ledger import parity

    role = decode(await read_body(request.receive, gateway.live.current.max_body_mb)).get("role")
    if not isinstance(role, str) or role not in gateway.live.current.chains:
        raise bad("role", "must be the name of a role")
    database = _database(gateway)
    try:
        ended = await parity.rearm(database, role, "an admin, over HTTP")
    except DatabaseUnavailableError as error:
        raise _away(str(error)) from error
    if not ended:
        raise CallerError(f"The role {role} has no test that breached or found nothing out.", code="nothing_to_rearm")
    return {"rearmed": [{"id": each.id, "target": str(each.trial.target)} for each in ended]}


def _database(gateway: Gateway) -> Database:
    if gateway.database is None:
        raise CallerError("Parity needs the database: DATABASE_URL is off.", status=404, code="no_database")
    return gateway.database


def _away(why: str) -> SluiceError:
    return SluiceError(f"Parity needs the database: {why}.", status=503, code="database_unavailable")
