"""The frame around every page: links, theme, the gateway's state, and where things are told."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.dashboard.live import Live, Region
from app.dashboard.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.dashboard.gateway import Gateway

_HEAD = """
<link rel="stylesheet" href="/static/dashboard.css">
<script src="/static/dashboard.js" type="module"></script>
"""
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        name: names its icon too.
        told: a sentence under its heading, which is the title.
        build: places what it shows.
        build_one: does so where the path names one thing below the page's own; None where there is no such path.
    """

    name: str
    path: str
    title: str
    told: str
    build: Callable[[Live], None]
    build_one: Callable[[Live, str], None] | None = None


@contextlib.contextmanager
def shell(gateway: Gateway, page: Page, pages: Sequence[Page], *, locked: bool) -> Iterator[Live]:
    """Build the frame; what is made inside the ``with`` stands in its middle.

    Args:
        gateway: what the page shows.
        page: the one that is built.
        pages: all that are linked.
        locked: whether there is a key, so that one can log out.
    """
    ui.page_title(f"{page.title} · Sluice")
    ui.add_head_html(_HEAD)
    live = Live(gateway)
    _no_second_main()
    frame = {"pages": pages, "here": page.name, "title": page.title, "locked": locked}
    _still("a", "skip", "Skip to the content").props('href="#content"')
    _still("header", "top", render("top.html", **frame))
    with ui.element("div").classes("frame"):
        _still("div", "side", render("side.html", **frame))
        with ui.element("main").classes("main").props('id="content" tabindex="-1"'):
            _still("div", "head", render("head.html", title=page.title, told=page.told))
            status = live.panel("status.html", {"health": "/health/ready"}, lambda health: _status(health, page.name))
            status.region.classes("silent stack").props('role="status"')
            yield live
    live.toasts = Region("div")
    live.toasts.classes("toasts").props('role="status" aria-live="polite"')


def _no_second_main() -> None:
    """Take the role of a landmark from the framework's own ``main``, which holds the links as well."""
    slot = ui.context.client.content.parent_slot
    if slot is not None:
        slot.parent.props('role="presentation"')


def _still(tag: str, classes: str, html: str) -> Region:
    """Place HTML that does not change."""
    region = Region(tag)
    region.classes(classes)
    region.put(html)
    return region


def _status(health: dict[str, Any], here: str) -> dict[str, Any]:
    """Gather why the gateway is not simply ready."""
    reasons = [f"{name}: {each['why']}" for name, each in health["backends"].items() if each["status"] == "degraded"]
    lanes = bool(reasons)
    reasons += [f"{name}: {each['why']}" for name, each in health["dependencies"].items() if each["status"] != "ready"]
    if not health["config"]["ok"]:
        reasons.insert(0, f"the configuration on disk is not in force: {health['config']['error']}")
    if health["status"] == "unready" and not reasons:
        reasons = ["no role has a usable target"]
    more = len(reasons) - _MOST_REASONS
    shown = reasons[:_MOST_REASONS] + ([f"and {more} more"] if more > 0 else [])
    return {"health": health, "reasons": shown, "here": here, "lanes": lanes}
