"""Charts as ECharts options. Colours are the sheet's variables: drawn as SVG, a chart follows the theme by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.dashboard.live import Region
from app.dashboard.render import render

if TYPE_CHECKING:
    from collections.abc import Sequence

_SERIES = 8
_FONT = {"fontFamily": "inherit", "color": "var(--muted)", "fontSize": 11.5}
_AXIS_LINE = {"lineStyle": {"color": "var(--line)"}}
_BASE: dict[str, Any] = {
    "animation": False,
    "textStyle": _FONT,
    "grid": {"left": 4, "right": 8, "top": 34, "bottom": 2, "containLabel": True},
    "legend": {
        "type": "scroll", "left": 0, "top": 0, "icon": "roundRect", "itemWidth": 10, "itemHeight": 10, "itemGap": 16,
        "textStyle": _FONT, "pageTextStyle": _FONT, "pageIconColor": "var(--muted)",
        "pageIconInactiveColor": "var(--line)",
    },
    "tooltip": {
        "trigger": "axis", "confine": True, "backgroundColor": "var(--card)", "borderColor": "var(--line)",
        "textStyle": {"color": "var(--ink)", "fontFamily": "inherit", "fontSize": 12.5},
        "axisPointer": {"type": "shadow", "shadowStyle": {"color": "var(--line)", "opacity": 0.35}},
    },
}  # fmt: skip


class Chart:
    """A chart with a table of its figures beside it, for those who cannot see it or want the numbers."""

    def __init__(self, name: str, *, low: bool = False) -> None:
        """Place it here.

        Args:
            name: what it shows, for screen readers.
            low: whether it is one of the lower ones.
        """
        self._name = name
        self._chart = ui.echart({}, renderer="svg").classes("chart low" if low else "chart")
        self._chart.props(f'role="img" aria-label="{name}, a chart; the table below has its figures"')
        self._table = Region("div")

    def show(self, head: Sequence[str], labels: Sequence[str], series: Sequence[Any], options: dict[str, Any]) -> None:
        """Show options, and the same figures as a table.

        Args:
            head: the table's first column's name, then each series'.
            labels: the first column.
            series: each series' figures, as they are to be read.
            options: ECharts'.
        """
        self._chart.set_visibility(True)
        if options != self._chart.options:
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
        rows = list(zip(labels, *series, strict=True))
        self._table.put(render("chart_table.html", name=self._name, head=head, rows=rows, id=self._table.id))

    def hide(self) -> None:
        """Take it away: there is nothing to show."""
        self._chart.set_visibility(False)
        self._table.put("")


def stacked(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> dict[str, Any]:
    """Return stacked bars over time; each series is named and coloured by its place."""
    return _BASE | {
        "xAxis": _category(labels),
        "yAxis": _value("{value}"),
        "series": [
            {
                "name": name, "type": "bar", "stack": "all", "data": list(data), "barCategoryGap": "22%",
                "itemStyle": {"color": colour(index)}, "emphasis": {"disabled": True},
            }
            for index, (name, data) in enumerate(series)
        ],
    }  # fmt: skip


def beside(labels: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]]) -> dict[str, Any]:
    """Return bars side by side, each series with its name and colour; figures are US dollars."""
    return _BASE | {
        "xAxis": _category(labels),
        "yAxis": _value("${value}"),
        "series": [
            {
                "name": name, "type": "bar", "data": list(data), "barMaxWidth": 22, "barGap": "12%",
                "itemStyle": {"color": ink, "borderRadius": [3, 3, 0, 0]}, "emphasis": {"disabled": True},
            }
            for name, ink, data in series
        ],
    }  # fmt: skip


def colour(index: int) -> str:
    """Return the colour of a series by its place."""
    return f"var(--series-{index % _SERIES + 1})"


def _category(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "category", "data": list(labels), "axisLine": _AXIS_LINE, "axisTick": {"show": False},
        "axisLabel": _FONT | {"hideOverlap": True},
    }  # fmt: skip


def _value(formatter: str) -> dict[str, Any]:
    return {
        "type": "value", "minInterval": 1 if formatter == "{value}" else 0, "splitNumber": 4,
        "splitLine": _AXIS_LINE, "axisLabel": _FONT | {"formatter": formatter},
    }  # fmt: skip
