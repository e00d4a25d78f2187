"""What is going on: figures, calls over time, the newest calls, and lanes out of use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.dashboard import charts
from app.dashboard.render import clock
from app.dashboard.shell import Page
from app.dashboard.switches import Group, Switches

if TYPE_CHECKING:
    from app.dashboard.live import Live

_SERIES = Group("by", "Series", (("target", "Target"), ("role", "Tier")))
_RANGE = Group("minutes", "Range", (("60", "1 h"), ("360", "6 h"), ("1440", "24 h")))


def _build(live: Live) -> None:
    switches = Switches(_SERIES, _RANGE, by="target", minutes="60")

    def traffic() -> dict[str, str]:
        return {"traffic": "/admin/traffic?minutes={minutes}&by={by}".format(**switches.chosen)}

    def figures(traffic: dict[str, Any], savings: dict[str, Any]) -> dict[str, Any]:
        return {"traffic": traffic, "savings": savings, "range": dict(_RANGE.options)[switches.chosen["minutes"]]}

    live.panel("figures.html", lambda: traffic() | {"savings": "/v1/savings?days=1"}, figures)
    with switches.card(live, "Calls over time"):
        live.panel("traffic.html", traffic, drawn=lambda values: _draw(chart, values))
        chart = charts.Chart("Calls over time")
    with ui.element("div").classes("two wide-left"):
        live.panel("newest.html", {"told": "/admin/calls?limit=8"}, classes="card", tag="section")
        live.panel("lanes_brief.html", {"told": "/admin/breakers"}, _brief, classes="card", tag="section")


PAGE = Page("overview", "/", "Overview", "What Sluice is doing right now.", _build)


def _draw(chart: charts.Chart, values: dict[str, Any] | None) -> None:
    traffic = values["traffic"] if values else None
    if traffic is None or not traffic["total"]["calls"]:
        chart.hide()
        return
    labels = [clock(at)[:5] for at in traffic["at_ms"]]
    series = [(each["name"], each["calls"]) for each in traffic["series"]]
    head = ["from (UTC)", *(name for name, _ in series)]
    chart.show(head, labels, [data for _, data in series], charts.stacked(labels, series))


def _brief(told: dict[str, Any]) -> dict[str, Any]:
    """Show lanes that are out of use first, then the busiest."""
    lanes = [{"target": name, **lane} for name, lane in told["lanes"].items()]
    lanes.sort(key=lambda lane: (lane["state"] == "closed" and not lane["forced"], -lane["in_use"], -lane["calls"]))
    return {"lanes": lanes[:7], "more": max(len(lanes) - 7, 0)}
