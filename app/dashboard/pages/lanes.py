"""Lanes and backends: what is in use, what is out of use and why, and the operator's hand on each breaker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.dashboard.render import filled
from app.dashboard.shell import Page

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live

_DONE = {
    "open": "{} is out of use until you close it or set it to auto.",
    "closed": "{} is in use whatever its failures.",
    "auto": "{} decides by its failures again.",
}


def _build(live: Live) -> None:
    act = partial(_force, live)
    live.panel("lanes.html", {"told": "/admin/breakers"}, _lanes, act, tag="section", classes="card")
    live.panel("backends.html", {"health": "/health/ready"}, _backends, tag="section", classes="card")


PAGE = Page(
    "lanes",
    "/lanes",
    "Lanes",
    "A lane is one target with its breaker and its slots. An open breaker keeps calls away from it.",
    _build,
)


async def _force(live: Live, act: Act) -> None:
    target, state = act["target"], act["state"]
    await live.gateway.send("POST", f"/admin/breakers/{quote(target)}", {"state": state})
    live.say(_DONE[state].format(target))


def _lanes(told: dict[str, Any]) -> dict[str, Any]:
    """Sort lanes: those out of use first."""
    lanes = [
        {"target": name, "fill": filled(lane["in_use"], lane["slots"]), **lane} for name, lane in told["lanes"].items()
    ]
    lanes.sort(key=lambda lane: (lane["state"] == "closed" and not lane["forced"], lane["target"]))
    return {"lanes": lanes}


def _backends(health: dict[str, Any]) -> dict[str, Any]:
    order = {"degraded": 0, "ready": 1, "unusable": 2}
    found = sorted(health["backends"].items(), key=lambda item: (order.get(item[1]["status"], 0), item[0]))
    usable = [each for each in found if each[1]["status"] != "unusable"]
    return {"usable": usable, "unusable": found[len(usable) :]}
