"""Money: what calls cost, what they would have cost at the baseline, and the difference, with how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.dashboard import charts
from app.dashboard.render import render, usd
from app.dashboard.shell import shell

if TYPE_CHECKING:
    from app.dashboard.config import Config
    from app.dashboard.gateway import Gateway
    from app.dashboard.live import Act

_BYS = (("day", "Day"), ("task", "Task"), ("tenant", "Tenant"))
_RANGES = (("7", "7 days"), ("30", "30 days"), ("90", "90 days"))
_MOST_BARS = 31


def install(gateway: Gateway, config: Config) -> None:
    """Register the page."""

    @ui.page("/money")
    async def money() -> None:
        told = "What calls cost, and what the same tokens would have cost at the baseline model. Unpriced is never 0."
        with shell(gateway, "money", told, locked=bool(config.admin_key)) as live:
            chosen = {"by": "day", "days": "30"}

            def sources() -> dict[str, str]:
                return {"savings": f"/v1/savings?by={chosen['by']}&days={chosen['days']}"}

            def view(savings: dict[str, Any]) -> dict[str, Any]:
                return {"savings": savings, "by": chosen["by"]}

            async def choose(act: Act) -> None:
                chosen[act["do"]] = act["value"]
                switches.put(_switches(chosen))

            live.panel("savings.html", sources, view)
            with ui.element("section").classes("card").props('aria-labelledby="where"'):
                switches = live.region("div", choose)
                switches.classes("title")
                switches.put(_switches(chosen))
                live.panel("savings_by.html", sources, view, drawn=lambda values: _draw(chart, values))
                chart = charts.Chart("Cost and baseline")
            await live.begin()


def _switches(chosen: dict[str, str]) -> str:
    return render("money_switches.html", chosen=chosen, ranges=_RANGES, bys=_BYS)


def _draw(chart: charts.Chart, values: dict[str, Any] | None) -> None:
    rows = values["savings"]["by"] if values else []
    if not rows:
        chart.hide()
        return
    rows = rows[-_MOST_BARS:] if values and values["by"] == "day" else rows[:_MOST_BARS]
    labels = [str(row["name"] or "none") for row in rows]
    cost, baseline = ([row[name] or 0 for row in rows] for name in ("cost_usd", "baseline_usd"))
    options = charts.beside(
        labels, [("Baseline", "var(--series-8)", baseline), ("Cost", "var(--series-1)", cost)]
    )  # fmt: skip
    figures = [[usd(row[name]) for row in rows] for name in ("cost_usd", "baseline_usd", "saved_usd")]
    chart.show(["", "cost", "baseline", "saved"], labels, figures, options)
