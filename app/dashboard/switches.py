"""Groups of buttons beside a card's heading, of which one each is pressed: what the card shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicegui import ui

from app.dashboard.render import render

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live


@dataclass(frozen=True, slots=True)
class Group:
    """One group.

    Attributes:
        label: for screen readers.
        options: values with what their buttons say.
    """

    name: str
    label: str
    options: tuple[tuple[str, str], ...]


class Switches:
    """What is chosen of each group.

    Attributes:
        chosen: by the groups' names.
    """

    def __init__(self, *groups: Group, **chosen: str) -> None:
        self._groups = groups
        self.chosen = chosen

    def card(self, live: Live, title: str) -> ui.element:
        """Place a card with a heading and these switches; what is made inside the ``with`` stands below them."""
        card = ui.element("section").classes("card").props('aria-labelledby="charted"')
        with card:
            self._title = title
            self._region = live.region("div", self._choose)
            self._region.classes("title")
            self._show()
        return card

    async def _choose(self, act: Act) -> None:
        self.chosen[act["do"]] = act["value"]
        self._show()

    def _show(self) -> None:
        self._region.put(render("switches.html", title=self._title, groups=self._groups, chosen=self.chosen))
