"""Photographs every page of the dashboard, wide and narrow, light and dark. ``scripts/screenshots`` calls this."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboard.stage import KEY, PAST, Stage, browser, stage, until  # noqa: E402 - the path comes first

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_SIZES = {1440: 900, 390: 844}
_PROMPT = "Write a python function that reverses a list, with a test."
_PAGES = {
    "overview": "/",
    "calls": f"/calls/{PAST}",
    "money": "/money",
    "lanes": "/lanes",
    "models": "/models",
    "roles": "/roles",
    "keys": "/keys",
    "playground": "/playground",
}
_CHARTS = frozenset({"overview", "money"})
_SETTLE_MS = 400
"""Until fonts are there and a chart has its size."""
_WITH_SCROLL = frozenset({390})


def main() -> int:
    """Set the stage, and take the pictures that are named, or all."""
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names = sys.argv[1:] or list(_PAGES)
    with tempfile.TemporaryDirectory() as data, stage(Path(data), past=1500) as on, browser() as chrome:
        _prepare(on)
        for width in _SIZES:
            for theme in ("light", "dark"):
                page = _page(on, chrome, width, theme)
                for name in names:
                    _show(page, name)
                    page.screenshot(
                        path=folder / f"dashboard-{name}-{width}-{theme}.png", full_page=width in _WITH_SCROLL
                    )
                page.context.close()
    return 0


def _prepare(on: Stage) -> None:
    """Have something in every state: an open breaker, a switched role, keys with budgets."""
    until(lambda: len(on.api.get("/admin/breakers").json()["lanes"]) > 2)  # noqa: PLR2004 - those of the four targets that most calls go to
    on.api.post("/admin/breakers/openai/gpt-5.1", json={"state": "open"})
    on.api.post("/admin/roles", json={"roles": {"analysis": "groq/llama-3.3-70b-versatile"}})
    for name, budget in (("web shop", 5), ("support", 20)):
        on.api.post("/admin/keys", json={"name": name, "budget_day_usd": budget, "rpm": 600})


def _page(on: Stage, chrome: Browser, width: int, theme: str) -> Page:
    context = chrome.new_context(
        viewport={"width": width, "height": _SIZES[width]},
        base_url=on.url,
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto("/login")
    page.get_by_label("ADMIN_KEY").fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{on.url}/")
    return page


def _show(page: Page, name: str) -> None:
    page.goto(_PAGES[name])
    page.locator(".skeleton").first.wait_for(state="detached")
    if name in _CHARTS:
        page.locator(".chart svg").first.wait_for()
    page.wait_for_timeout(_SETTLE_MS)
    if name == "playground":
        page.get_by_label("What a caller would ask").fill(_PROMPT)
        page.get_by_role("button", name="Send").click()
        page.get_by_text("whole, ").wait_for()


if __name__ == "__main__":
    sys.exit(main())
