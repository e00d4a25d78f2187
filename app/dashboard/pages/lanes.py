"""Lanes and backends: what is in use, what is out of use and why, and the operator's hand on each breaker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import ui

from app.dashboard.shell import shell

if TYPE_CHECKING:
    from app.dashboard.config import Config
    from app.dashboard.gateway import Gateway
    from app.dashboard.live import Act, Live

_DONE = {
    "open": "{} is out of use until you close it or set it to auto.",
    "closed": "{} is in use whatever its failures.",
    "auto": "{} decides by its failures again.",
}


def install(gateway: Gateway, config: Config) -> None:
    """Register the page."""

    @ui.page("/lanes")
    async def lanes() -> None:
        told = "A lane is one target with its breaker and its slots. An open breaker keeps calls away from it."
        with shell(gateway, "lanes", told, locked=bool(config.admin_key)) as live:
            act = partial(_force, live)
            live.panel("lanes.html", {"told": "/admin/breakers"}, _lanes, act, tag="section", classes="card")
            live.panel("backends.html", {"health": "/health/ready"}, _backends, tag="section", classes="card")
            await live.begin()


async def _force(live: Live, act: Act) -> None:
    target, state = act["target"], act["state"]
    await live.gateway.send("POST", f"/admin/breakers/{quote(target)}", {"state": state})
    live.say(_DONE[state].format(target))


def _lanes(told: dict[str, Any]) -> dict[str, Any]:
    """Sort lanes: those out of use first."""
    lanes = [{"target": name, "fill": _fill(lane), **lane} for name, lane in told["lanes"].items()]
    lanes.sort(key=lambda lane: (lane["state"] == "closed" and not lane["forced"], lane["target"]))
    return {"lanes": lanes}


def _fill(lane: dict[str, Any]) -> float:
    """Return how full a lane's slots are, in percent."""
    return min(100.0, 100.0 * lane["in_use"] / lane["slots"]) if lane["slots"] else 0.0


def _backends(health: dict[str, Any]) -> dict[str, Any]:
    order = {"degraded": 0, "ready": 1, "unusable": 2}
    found = sorted(health["backends"].items(), key=lambda item: (order.get(item[1]["status"], 0), item[0]))
    usable = [each for each in found if each[1]["status"] != "unusable"]
    return {"usable": usable, "unusable": found[len(usable) :]}
