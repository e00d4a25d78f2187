"""The operator's endpoints, under ``/admin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request

from app.api import auth
from app.api.check import bad
from app.api.health import local_models
from app.api.ops import Here, gateway_of
from app.api.parse import decode, read_body
from app.backend.hub_cache import on_disk
from app.backend.mlx import MlxBackend
from app.call import Target
from app.errors import CallerError
from app.guard.breaker import merge
from app.guard.lanes import lane_name
from app.settings import shadowed

if TYPE_CHECKING:
    from app.gateway import Gateway


def admit(request: Request) -> None:
    """Let only admins pass; a dependency of every router under ``/admin``."""
    auth.admit_admin(request.scope, dict(request.scope["headers"]), gateway_of(request).live.current)


admin = APIRouter(prefix="/admin", dependencies=[Depends(admit)])

_ACTIONS = ("load", "unload", "pull")
_ORDERS = ("open", "closed", "auto")
"""What an operator may order of a lane: open refuses all calls, closed admits all, auto decides by itself."""


@admin.get("/config")
async def config(gateway: Here) -> dict[str, Any]:
    """Return the settings in force, secrets masked, and which of them editing ``.env`` cannot change."""
    live = gateway.live
    return {
        "settings": live.current.masked(),
        "ok": live.error is None,
        "error": live.error,
        "shadowed": shadowed(live.env_file),
    }


@admin.post("/reload")
async def reload(gateway: Here) -> dict[str, Any]:
    """Read the configuration anew on every worker; a bad one changes nothing."""
    if not gateway.reload():
        raise CallerError(f"The configuration was not loaded: {gateway.live.error}", code="invalid_configuration")
    return {"ok": True, "error": None}


@admin.get("/models")
async def models(gateway: Here) -> dict[str, Any]:
    """Return the state of the local models, those not on the disk as ``absent``, and the memory of every engine."""
    config = gateway.live.current.backend_configs["mlx"]
    states = await local_models(gateway)
    backend = gateway.backends.mlx(config) if config.problem is None else None
    stats = await backend.ask_engines("/stats") if backend is not None else []
    here = not config.engines  # what an engine elsewhere has on its disk only it knows
    shown = {name: _absent(name, state, dict(config.environment)) if here else state for name, state in states.items()}
    engines = [{"memory": each.get("memory"), "requests": each.get("requests")} for each in stats]
    return {"models": shown, "engines": engines, "problem": config.problem}


def _absent(name: str, state: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Tell a model that would have to be downloaded from one that only is not in memory."""
    if state["state"] != "not_loaded" or on_disk(name.removeprefix("mlx/"), environment):
        return state
    return state | {"state": "absent"}


@admin.post("/models/{action}")
async def order(action: str, request: Request, gateway: Here) -> dict[str, Any]:
    """Load, unload or pull a local model (``{"model": "mlx/…"}``); answers when it is done."""
    settings = gateway.live.current
    wanted = decode(await read_body(request.receive, settings.max_body_mb)).get("model")
    if action not in _ACTIONS:
        raise bad("action", f"must be one of {', '.join(_ACTIONS)}")
    if not isinstance(wanted, str) or not wanted:
        raise bad("model", "must be the name of a local model")
    config = settings.backend_configs["mlx"]
    if config.problem is not None:
        raise CallerError(f"Local models are not usable: {config.problem}.", status=503, code="no_usable_backend")
    backend = gateway.backends.of(config)
    if not isinstance(backend, MlxBackend):
        raise TypeError("mlx is not the local engine")
    model = wanted.removeprefix("mlx/")
    return {"model": f"mlx/{model}", **await backend.order(action, model)}


@admin.get("/breakers")
async def breakers(gateway: Here) -> dict[str, Any]:
    """Return every lane's breaker, that of all workers of this host together."""
    return {"lanes": _lanes(gateway)}


def _lanes(gateway: Gateway) -> dict[str, Any]:
    seen: dict[str, list[dict[str, Any]]] = {}
    for lane in gateway.lanes:
        seen.setdefault(str(lane.target), []).append(lane.snapshot())
    others = gateway.board.others("breakers") if gateway.board is not None else {}
    for worker in others.values():
        for target, snapshot in worker.items():
            seen.setdefault(target, []).append(snapshot)
    return {target: merge(snapshots) for target, snapshots in seen.items()}


@admin.post("/breakers/{target:path}")
async def force(target: str, request: Request, gateway: Here) -> dict[str, Any]:
    """Force a lane open or closed on every worker and host, or let it decide by itself again."""
    settings = gateway.live.current
    state = decode(await read_body(request.receive, settings.max_body_mb)).get("state")
    if state not in _ORDERS:
        raise bad("state", f"must be one of {', '.join(_ORDERS)}")
    configs = settings.backend_configs
    try:
        wanted = Target.parse(target)
    except ValueError as error:
        raise CallerError(str(error), param="target", code="invalid_value") from error
    backend = configs.get(wanted.backend)
    if backend is None or gateway.sharing is None:
        raise CallerError(
            f"There is no backend {wanted.backend!r}.", status=404, code="unknown_backend", param="target"
        )
    gateway.lanes.of(backend, wanted)
    gateway.sharing.force(lane_name(backend, wanted), None if state == "auto" else state)
    return {"lanes": {target: _lanes(gateway)[str(wanted)]}}
