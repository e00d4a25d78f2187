"""A page's panels: each is a template over what some of the gateway's addresses say, drawn anew while it is open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nicegui import ui
from nicegui.element import Element

from app.dashboard.gateway import Gateway, Told, TroubleError
from app.dashboard.render import render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nicegui.events import GenericEventArguments

EVERY_S = 2.0
"""How often an open page is brought up to date."""
_FIRST_S = 1.0
"""How long a page waits for its first figures, before it comes with placeholders."""
_TOAST_S, _BAD_TOAST_S = 6.0, 15.0

_ODD = TroubleError("What the gateway says here is not understood.", "Give it and the dashboard the same version.")
Act = dict[str, Any]
log = logging.getLogger("sluice.dashboard")


class Region(Element, component="static/region.js"):
    """A piece of server-rendered HTML; ``act`` hears what is pressed (``data-do``), chosen or sent in it."""

    def __init__(self, tag: str = "div", act: Callable[[Act], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self._props["tag"] = tag
        self._props["html"] = ""
        if act is not None:
            self.on("act", _heard(act))

    @property
    def html(self) -> str:
        """What it shows."""
        html: str = self._props["html"]
        return html

    def put(self, html: str) -> None:
        """Show this; where it is what is shown already, nothing is sent."""
        html = html.strip()
        if html != self._props["html"]:
            self._props["html"] = html
            self.update()


def _heard(act: Callable[[Act], Awaitable[None]]) -> Callable[[GenericEventArguments], Awaitable[None]]:
    async def hear(event: GenericEventArguments) -> None:
        if isinstance(event.args, dict) and isinstance(event.args.get("do"), str):
            await act({str(name): value for name, value in event.args.items() if isinstance(value, str)})

    return hear


@dataclass(slots=True)
class Panel:
    """One region that follows the gateway.

    Attributes:
        sources: the addresses it shows, by the name that ``view`` takes them under; asked for at each drawing.
        view: makes the template's values of what they said; what it raises is a bug.
        drawn: told the values at each drawing, for what is beside the region, a chart.
    """

    region: Region
    template: str
    sources: Callable[[], Mapping[str, str]]
    view: Callable[..., dict[str, Any]]
    drawn: Callable[[dict[str, Any] | None], None] | None = None

    def draw(self, told: Mapping[str, Told]) -> None:
        """Show the newest of everything, or why there is nothing."""
        newest = {name: told[path] for name, path in self.sources().items()}
        trouble = next((each.trouble for each in newest.values() if each.trouble is not None), None)
        values: dict[str, Any] | None = None
        if any(each.value is None for each in newest.values()):
            if trouble is None:
                return  # it is being asked for by another page
            self.region.put(render("failed.html", trouble=trouble))
        else:
            values = self._shown(trouble, {name: each.value for name, each in newest.items()})
        if self.drawn is not None:
            self.drawn(values)

    def _shown(self, trouble: TroubleError | None, said: dict[str, Any]) -> dict[str, Any] | None:
        """Show what was said; what cannot be shown costs this panel only, not the page."""
        try:
            values = self.view(**said)
            self.region.put(render(self.template, trouble=trouble, **values))
        except Exception:
            log.exception("%s cannot be drawn", self.template)
            self.region.put(render("failed.html", trouble=_ODD))
            return None
        return values


@dataclass(slots=True)
class Live:
    """All panels of one open page."""

    gateway: Gateway
    panels: list[Panel] = field(default_factory=list)
    toasts: Region | None = None
    _said: list[tuple[str, bool]] = field(default_factory=list)

    def panel(
        self,
        template: str,
        sources: Callable[[], Mapping[str, str]] | Mapping[str, str],
        view: Callable[..., dict[str, Any]] = dict,
        act: Callable[[Act], Awaitable[None]] | None = None,
        *,
        tag: str = "div",
        classes: str = "",
        drawn: Callable[[dict[str, Any] | None], None] | None = None,
    ) -> Panel:
        """Add a panel here; it has placeholders until it is drawn."""
        region = self.region(tag, act)
        region.classes(classes)
        region.put(render("loading.html"))
        asked = sources if callable(sources) else lambda: sources
        panel = Panel(region, template, asked, view, drawn)
        self.panels.append(panel)
        return panel

    def region(self, tag: str, act: Callable[[Act], Awaitable[None]] | None = None) -> Region:
        """Place a region here that does not follow the gateway, but may change it."""
        return Region(tag, self._acting(act) if act is not None else None)

    def _acting(self, act: Callable[[Act], Awaitable[None]]) -> Callable[[Act], Awaitable[None]]:
        """Have troubles told, and the page drawn anew after what was done."""

        async def acting(asked: Act) -> None:
            try:
                await act(asked)
            except TroubleError as trouble:
                self.say(f"{trouble.message} {trouble.remedy}".strip(), bad=True)
            await self.draw()

        return acting

    async def draw(self) -> None:
        """Ask for everything that is shown, and show it."""
        paths = list(dict.fromkeys(path for panel in self.panels for path in panel.sources().values()))
        told = dict(zip(paths, await asyncio.gather(*map(self.gateway.ask, paths)), strict=True))
        for panel in self.panels:
            if all(path in told for path in panel.sources().values()):  # it may ask for other things by now
                panel.draw(told)

    async def begin(self) -> None:
        """Draw for the first time, and go on while the page is open."""
        ui.timer(EVERY_S, self.draw, immediate=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self.draw()

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell something in the corner, to screen readers too, and take it away after a while."""
        if self.toasts is None:
            return
        said = (text, bad)
        self._said.append(said)
        self._show_said()
        with self.toasts:
            ui.timer(_BAD_TOAST_S if bad else _TOAST_S, lambda: self._unsay(said), once=True)

    def _unsay(self, said: tuple[str, bool]) -> None:
        if said in self._said:
            self._said.remove(said)
            self._show_said()

    def _show_said(self) -> None:
        if self.toasts is not None:
            self.toasts.put(render("toasts.html", said=self._said))
