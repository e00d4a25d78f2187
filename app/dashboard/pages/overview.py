"""What is going on: figures, calls over time, the newest calls, and lanes out of use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.dashboard import charts
from app.dashboard.render import clock, render
from app.dashboard.shell import shell

if TYPE_CHECKING:
    from app.dashboard.config import Config
    from app.dashboard.gateway import Gateway
    from app.dashboard.live import Act

_RANGES = (("60", "1 h"), ("360", "6 h"), ("1440", "24 h"))
_BYS = (("target", "Target"), ("role", "Tier"))


def install(gateway: Gateway, config: Config) -> None:
    """Register the page."""

    @ui.page("/")
    async def overview() -> None:
        with shell(gateway, "overview", "What Sluice is doing right now.", locked=bool(config.admin_key)) as live:
            chosen = {"minutes": "60", "by": "target"}

            def traffic() -> dict[str, str]:
                return {"traffic": f"/admin/traffic?minutes={chosen['minutes']}&by={chosen['by']}"}

            async def choose(act: Act) -> None:
                chosen[act["do"]] = act["value"]
                switches.put(_switches(chosen))

            live.panel(
                "figures.html",
                lambda: traffic() | {"savings": "/v1/savings?days=1"},
                lambda traffic, savings: {"traffic": traffic, "savings": savings, "range": _name(chosen["minutes"])},
            )
            with ui.element("section").classes("card").props('aria-labelledby="over-time"'):
                switches = live.region("div", choose)
                switches.classes("title")
                switches.put(_switches(chosen))
                live.panel(
                    "traffic.html", traffic, lambda traffic: {"traffic": traffic}, drawn=lambda v: _draw(chart, v)
                )
                chart = charts.Chart("Calls over time")
            with ui.element("div").classes("two wide-left"):
                live.panel("newest.html", {"told": "/admin/calls?limit=8"}, classes="card", tag="section")
                live.panel("lanes_brief.html", {"told": "/admin/breakers"}, _brief, classes="card", tag="section")
            await live.begin()


def _switches(chosen: dict[str, str]) -> str:
    return render("overview_switches.html", chosen=chosen, ranges=_RANGES, bys=_BYS)


def _name(minutes: str) -> str:
    return dict(_RANGES)[minutes]


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
