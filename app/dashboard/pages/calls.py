"""The calls: newest first, filtered, and any one of them with its stages and attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from nicegui import ui

from app.dashboard.shell import Page
from app.dashboard.waterfall import waterfall

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live, Panel

_FILTERS = ("outcome", "target", "tenant")
_OUTCOMES = ("ok", "error", "abandoned", "cut")
_PAGE = 30


class _Calls:
    """One open page: what is filtered, how far back, and which call is looked at."""

    def __init__(self, chosen: str | None) -> None:
        self.chosen = chosen
        self.filters: dict[str, str] = {}
        self.before: list[str] = []
        self.detail: Panel | None = None

    def listed(self) -> dict[str, str]:
        asked: dict[str, Any] = {"limit": _PAGE, **self.filters}
        if self.before:
            asked["before"] = self.before[-1]
        return {"told": f"/admin/calls?{urlencode(asked)}"}

    def looked_at(self) -> dict[str, str]:
        return {"call": f"/admin/calls/{quote(self.chosen, safe='')}"} if self.chosen else {}

    def view_list(self, told: dict[str, Any]) -> dict[str, Any]:
        return {
            "told": told, "chosen": self.chosen, "filters": self.filters, "outcomes": _OUTCOMES,
            "older": bool(self.before),
        }  # fmt: skip

    @staticmethod
    def view_one(call: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"call": call, "bars": waterfall(call["stages"]) if call is not None else []}

    async def act(self, act: Act) -> None:
        """Do what was pressed in the list or in the detail."""
        match act["do"]:
            case "filter":
                self.filters = {name: act[name].strip() for name in _FILTERS if act.get(name, "").strip()}
                self.before = []
            case "older":
                self.before.append(act["before"])
            case "newer":
                self.before = self.before[:-1]
            case "open":
                self._choose(act["id"])
            case "close":
                self._choose(None)

    def _choose(self, name: str | None) -> None:
        self.chosen = name
        ui.navigate.history.replace(f"/calls/{quote(name, safe='')}" if name else "/calls")
        self.arrange()

    def arrange(self) -> None:
        """Give the detail its place, or take it away."""
        if self.detail is not None:
            self.detail.region.set_visibility(self.chosen is not None)


def _build(live: Live, name: str | None = None) -> None:
    calls = _Calls(name)
    with ui.element("div").classes("split"):
        live.panel("calls.html", calls.listed, calls.view_list, calls.act, tag="section", classes="card list")
        calls.detail = live.panel(
            "call.html", calls.looked_at, calls.view_one, calls.act, tag="section", classes="card one"
        )
    calls.detail.region.props('aria-label="The chosen call"')
    calls.arrange()


PAGE = Page(
    "calls",
    "/calls",
    "Calls",
    "Every call with the time of each stage. Prompts and answers are not kept.",
    _build,
    _build,
)
