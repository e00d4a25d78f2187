"""What the engine says of itself: ``/health`` and ``/stats``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.engine import runtime

if TYPE_CHECKING:
    from app.engine.model import Model
    from app.engine.models import Keeper
    from app.engine.settings import EngineSettings
    from app.engine.thread import MlxThread


def health(keeper: Keeper, thread: MlxThread, settings: EngineSettings) -> tuple[int, dict[str, Any]]:
    """Return the status and body of ``/health``: 503 where the MLX thread has ended or hangs in a step."""
    busy_s = thread.busy_s()
    status = "dead" if not thread.alive else "stalled" if busy_s > settings.stall_s else "ok"
    body = {
        "status": status,
        "step_running_s": round(busy_s, 3),
        "last_step_age_s": round(time.monotonic() - thread.last_turn, 3),
        "last_step_s": round(thread.last_turn_s, 4),
        "models": {model.name: describe(model, settings) for model in keeper.models.values()},
    }
    return (200 if status == "ok" else 503), body


def describe(model: Model, settings: EngineSettings) -> dict[str, Any]:
    """Return one model's state.

    ``bytes`` is what its weights take or would take, ``idle_s`` and ``ttl_left_s`` count from its last use.
    """
    now = time.monotonic()
    about: dict[str, Any] = {
        "state": model.state,
        "bytes": model.folder.weight_bytes if model.folder else None,
        "context": model.folder.context if model.folder else None,
        "embedding": model.folder.embedding if model.folder else None,
        "pinned": model.pinned,
        "running": model.leases,
        "waiting": len(model.waiting),
    }
    if model.state == "downloading":
        about |= {"done_bytes": model.progress.done, "total_bytes": model.progress.total}
    if model.state == "loading":
        about["percent"] = round(100 * model.fraction, 1)
    if model.state == "ready":
        idle = 0.0 if model.leases else now - model.last_use
        left = settings.ttl_s - idle if settings.ttl_s and not model.pinned else None
        about |= {"idle_s": round(idle, 1), "ttl_left_s": None if left is None else round(max(left, 0.0), 1)}
    if model.error is not None:
        about["error"] = model.error.body()["error"]
    return about


def stats(keeper: Keeper, thread: MlxThread) -> dict[str, Any]:
    """Return the figures that the gateway turns into metrics; totals count from the start of the process."""
    runners = dict(thread.runners)
    return {
        "memory": {
            "active_bytes": runtime.active_bytes(),
            "rss_bytes": runtime.rss_bytes(),
            "budget_bytes": keeper.budget,
        },
        "requests": {"running": keeper.leased(), "waiting": keeper.queued()},
        "unloads": keeper.unloads,
        "models": {model.name: _model(model, runners.get(model.name)) for model in keeper.models.values()},
    }


def _model(model: Model, runner: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "state": model.state,
        "loads": model.loads,
        "load_s": round(model.load_s, 3),
        "running": model.leases,
        "waiting": len(model.waiting),
    }
    if runner is None:
        return about
    return about | {
        "batch": runner.running,
        "kv_waiting": runner.waiting,
        "steps": runner.steps,
        "rebuilds": runner.rebuilds,
        "prompt_tokens": runner.prompt_rate.total,
        "decode_tokens": runner.decode_rate.total,
        "prompt_tokens_per_s": round(runner.prompt_rate.per_s(), 1),
        "decode_tokens_per_s": round(runner.decode_rate.per_s(), 1),
        "prefix": {
            "entries": len(runner.prefixes),
            "bytes": runner.prefixes.bytes,
            "disk_bytes": runner.prefixes.disk_bytes,
            "hits": runner.prefixes.hits,
            "misses": runner.prefixes.misses,
            "hit_tokens": runner.prefixes.hit_tokens,
        },
    }
