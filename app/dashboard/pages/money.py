"""Money: what calls cost, what they would have cost at the baseline, and the difference, with how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.dashboard import charts
from app.dashboard.render import usd
from app.dashboard.shell import Page
from app.dashboard.switches import Group, Switches

if TYPE_CHECKING:
    from app.dashboard.live import Live

_BY = Group("by", "By", (("day", "Day"), ("task", "Task"), ("tenant", "Tenant")))
_TIME = Group("days", "Time", (("7", "7 days"), ("30", "30 days"), ("90", "90 days")))
_MOST_BARS = 31


def _build(live: Live) -> None:
    switches = Switches(_BY, _TIME, by="day", days="30")

    def sources() -> dict[str, str]:
        return {"savings": "/v1/savings?by={by}&days={days}".format(**switches.chosen)}

    def view(savings: dict[str, Any]) -> dict[str, Any]:
        return {"savings": savings, "by": switches.chosen["by"]}

    live.panel("savings.html", sources, view)
    with switches.card(live, "Cost and baseline"):
        live.panel("savings_by.html", sources, view, drawn=lambda values: _draw(chart, values))
        chart = charts.Chart("Cost and baseline")


PAGE = Page(
    "money",
    "/money",
    "Money",
    "What calls cost, and what the same tokens would have cost at the baseline model. Unpriced is never 0.",
    _build,
)


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
