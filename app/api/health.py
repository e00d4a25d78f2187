"""What ``GET /health/ready`` says: the truth, at no cost. No paid model is ever called for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.call import Target
    from app.gateway import Gateway
    from app.guard.lanes import Lane
    from app.settings import Settings

_BAD = {"open", "half_open", "dead"}


def _sleepers(gateway: Gateway) -> dict[str, Any]:
    """Return the state of every model that the roles name on a devbox; nothing is asked for it."""
    settings = gateway.live.current
    states = gateway.backends.states(settings.backend_configs)
    return {
        str(target): dict(zip(("state", "why"), states[target.backend], strict=True))
        for target in sorted(_used(settings))
        if target.backend in states
    }


async def local_models(gateway: Gateway) -> dict[str, Any]:
    """Return the state of each local model that roles or MLX_MODELS name or an engine knows; none is started for it."""
    settings = gateway.live.current
    config = settings.backend_configs["mlx"]
    if config.problem is not None:
        return {}
    of_roles = {str(target) for target in _used(settings) if target.backend == "mlx"}
    named = sorted(of_roles | {f"mlx/{model}" for model in settings.mlx_models})
    models: dict[str, Any] = {name: {"state": "not_loaded"} for name in named}
    backend = gateway.backends.mlx(config)
    for told in await backend.ask_engines("/health") if backend is not None else ():
        for name, state in told.get("models", {}).items():
            shown = models.get(f"mlx/{name}")
            if shown is None or shown["state"] == "not_loaded" or state.get("state") == "ready":
                models[f"mlx/{name}"] = state
    return models


def readiness(gateway: Gateway, models: dict[str, Any]) -> dict[str, Any]:
    """Return the body of ``/health/ready``, given the state of the local models.

    ``unready``: not one role has a usable target, or the process is on its way out. ``degraded``: calls are served, but
    a lane that the roles use is out of use, a dependency is lost, or the configuration on disk is not the one in force.
    """
    settings = gateway.live.current
    used = _used(settings)
    backends = {
        name: _backend(name, gateway, settings, {target for target in used if target.backend == name})
        for name in settings.backend_configs
    }
    states = gateway.backends.states(settings.backend_configs)
    for name, (state, why) in states.items():
        backends[name] |= _awake(backends[name], state, why)
    dependencies = {name: state() for name, state in gateway.dependencies.items()}
    config = {"ok": gateway.live.error is None, "error": gateway.live.error}
    return {
        "status": _status(gateway, backends, dependencies, used),
        "backends": backends,
        "models": models | _sleepers(gateway),
        "dependencies": dependencies,
        "config": config,
    }


def _used(settings: Settings) -> set[Target]:
    """Return the targets that some role can send a call to."""
    return {
        choice.target
        for chain in settings.chains.values()
        for choice in chain
        if settings.backend_configs[choice.target.backend].problem is None
    }


def _status(gateway: Gateway, backends: dict[str, Any], dependencies: dict[str, Any], used: set[Target]) -> str:
    if gateway.draining or not used:
        return "unready"
    bad = gateway.live.error is not None or any(each["status"] == "degraded" for each in dependencies.values())
    return "degraded" if bad or any(backends[target.backend]["status"] == "degraded" for target in used) else "ready"


def _awake(told: dict[str, Any], state: str, why: str | None) -> dict[str, Any]:
    """Add the state of a backend that sleeps: asleep is well, only one that cannot be woken is not."""
    if state != "failed" or told["status"] != "ready":
        return {"state": state}
    return {"state": state, "status": "degraded", "why": why}


def _why(lane: Lane) -> str:
    """Say why a lane is out of use; not in the backend's words: this page asks nobody for a key."""
    if lane.breaker.forced is not None:
        return "forced by an operator"
    failure = lane.breaker.last_failure
    return failure.reason if failure is not None else "no failure on record"


def _backend(name: str, gateway: Gateway, settings: Settings, used: set[Target]) -> dict[str, Any]:
    problem = settings.backend_configs[name].problem
    if problem is not None:
        return {"status": "unusable", "why": problem}
    out = {}
    if name == "mlx" and gateway.backends.trouble() is not None:
        out[name] = gateway.backends.trouble()
    for lane in gateway.lanes:
        if lane.target in used and lane.breaker.state in _BAD:
            out[str(lane.target)] = f"{lane.breaker.state}: {_why(lane)}"
    if out:
        return {"status": "degraded", "why": "; ".join(f"{target} {why}" for target, why in out.items())}
    return {"status": "ready", "why": None if used else "no role uses it"}
