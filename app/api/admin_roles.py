"""``/admin/roles``: what ``sluice roles`` does, over HTTP: show, set, undo, in the gateway's own ``.env``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request

from app import roles
from app.api.admin import admit
from app.api.check import bad
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.api.parse import decode, read_body
from app.errors import CallerError
from app.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.gateway import Gateway

admin_roles = APIRouter(prefix="/admin", dependencies=[Depends(admit)])


@admin_roles.get("/roles")
async def show(gateway: Here) -> dict[str, Any]:
    """Return every role, who serves it now, and the change that an undo would take back."""
    return await _shown(gateway)


@admin_roles.post("/roles")
async def change(request: Request, gateway: Here) -> dict[str, Any]:
    """Set roles (``{"roles": {"analysis": "groq/…"}}``), all of them or none; null leaves the default."""
    body = decode(await read_body(request.receive, gateway.live.current.max_body_mb))
    wanted = body.get("roles")
    if not isinstance(wanted, dict) or not wanted:
        raise bad("roles", "must be an object of roles and their chains")
    for role, chain in wanted.items():
        if chain is not None and not isinstance(chain, str):
            raise bad(f"roles.{role}", "must be a chain, 'backend/model-id,…', or null for the default")
    assignments = [f"{role}={chain or ''}" for role, chain in wanted.items()]
    return await _edited(gateway, lambda: roles.change(gateway.live.env_file, assignments))


@admin_roles.post("/roles/undo")
async def undo(gateway: Here) -> dict[str, Any]:
    """Take the newest change of roles back."""
    return await _edited(gateway, lambda: roles.undo(gateway.live.env_file))


async def _edited(gateway: Gateway, edit: Callable[[], list[roles.Change]]) -> dict[str, Any]:
    """Edit the file in a thread, since that waits for the disk, then have every worker follow at once."""
    try:
        changes = await asyncio.to_thread(edit)
    except ConfigError as error:
        raise CallerError(f"Not changed: {error}", code="invalid_configuration", param="roles") from error
    except roles.RolesError as error:
        raise CallerError(f"Not changed: {error}", status=409, code="roles_not_changed", param="roles") from error
    gateway.reload()
    return {"changes": [each.as_json() for each in changes], **await _shown(gateway)}


async def _shown(gateway: Gateway) -> dict[str, Any]:
    live = gateway.live
    shown = {"roles": roles.as_json(roles.roles(live.loaded, live.current)), "undo": None, "undo_error": None}
    try:
        return shown | {"undo": await asyncio.to_thread(roles.newest, live.env_file)}
    except roles.RolesError as error:
        return shown | {"undo_error": str(error)}
