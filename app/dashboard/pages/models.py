"""Local models: where each stands, what it takes, and the orders to load, unload and download."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nicegui import background_tasks

from app.dashboard.gateway import TroubleError
from app.dashboard.render import filled
from app.dashboard.shell import Page

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live

_SAID = {"load": "Loading {}.", "unload": "Unloading {}.", "pull": "Downloading {}."}
_DONE = {"load": "{} is ready.", "unload": "{} is out of memory.", "pull": "{} is on the disk."}


def _build(live: Live) -> None:
    live.panel("models.html", {"told": "/admin/models"}, _models, partial(_order, live), classes="stack")


PAGE = Page(
    "models",
    "/models",
    "Local models",
    "Models that the local engine serves. A model is loaded by its first call, and unloaded when idle.",
    _build,
)


async def _order(live: Live, act: Act) -> None:
    """Give an order; it is carried out in the background, and the page shows how far it is."""
    action, model = act["action"], act["model"].strip()
    if not model:
        raise TroubleError("Name a model:", "a hub id like mlx-community/Qwen2.5-7B-Instruct-4bit, or a folder.")
    live.say(_SAID[action].format(model))
    background_tasks.create(_carry_out(live, action, model))


async def _carry_out(live: Live, action: str, model: str) -> None:
    try:
        await live.gateway.send("POST", f"/admin/models/{action}", {"model": model}, timeout_s=None)
    except TroubleError as trouble:
        live.say(f"{model}: {trouble.message} {trouble.remedy}".strip(), bad=True)
    else:
        live.say(_DONE[action].format(model))
    await live.draw()


def _models(told: dict[str, Any]) -> dict[str, Any]:
    engines = [each["memory"] | (each["requests"] or {}) for each in told["engines"] if each["memory"]]
    return {
        "models": [_model(name, state) for name, state in sorted(told["models"].items())],
        "engines": [each | {"share": filled(each["active_bytes"], each["budget_bytes"])} for each in engines],
        "problem": told["problem"],
    }


def _model(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Add to a model's state what its card shows: how far it is, and what can be ordered."""
    return {"name": name, "progress": _progress(state), "acts": _acts(state["state"]), **state}


def _progress(state: dict[str, Any]) -> float | None:
    """Return how far a download or a loading is, in percent; None where nothing goes on."""
    if state["state"] == "downloading":
        return filled(state["done_bytes"], state.get("total_bytes"))
    return float(state.get("percent", 0.0)) if state["state"] == "loading" else None


def _acts(state: str) -> list[tuple[str, str]]:
    match state:
        case "ready":
            return [("unload", "Unload")]
        case "downloading" | "loading":
            return [("unload", "Cancel")]
        case "absent":
            return [("pull", "Download"), ("load", "Download and load")]
        case _:
            return [("load", "Load")]
