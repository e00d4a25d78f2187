"""Photographs every page of the dashboard, wide and narrow, light and dark. ``scripts/screenshots`` calls this."""

from __future__ import annotations

import base64
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboard.past import NEWEST  # noqa: E402 - the path comes first
from tests.dashboard.stage import GATED, KEY, READY, SLOW, Stage, browser, stage, until  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, BrowserContext, Page

_SIZES = {1440: 900, 390: 844}
_LOOKS = [(width, theme) for width in _SIZES for theme in ("light", "dark")]
_PROMPT = "Write a python function that reverses a list, with a test."
_PAGES = {
    "overview": "/",
    "calls": f"/calls/{NEWEST}",
    "money": "/money",
    "lanes": "/lanes",
    "models": "/models",
    "roles": "/roles",
    "parity": "/parity",
    "keys": "/keys",
    "playground": "/playground",
}
_CHARTS = frozenset({"overview", "money"})
_SETTLE_MS = 400
"""Until fonts are there and a chart has its size."""
_TALL_PX = 2400
"""A phone's picture shows the page as it scrolls, so far down."""
_QUALITY = 82
"""Of WebP, 0 to 100: letters are still sharp, and a picture takes a third of a PNG's bytes."""


def main() -> int:
    """Set the stage, and take the pictures that are named, or all."""
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names = sys.argv[1:] or list(_PAGES)
    with tempfile.TemporaryDirectory() as data, stage(Path(data), calls=1500) as on, browser() as chrome:
        _prepare(on)
        contexts = {look: _context(on, chrome, *look) for look in _LOOKS}
        for name in names:
            _BEFORE.get(name, lambda _: None)(on)
            for (width, theme), context in contexts.items():
                page = context.new_page()
                page.set_default_timeout(120_000)
                _show(page, name)
                picture = _picture(page, tall=width < max(_SIZES))
                (folder / f"dashboard-{name}-{width}-{theme}.webp").write_bytes(picture)
                page.close()
        if on.hub is not None:
            on.hub.go_on.set()
    return 0


def _prepare(on: Stage) -> None:
    """Have something in every state: an open breaker, a switched role."""
    until(lambda: len(on.api.get("/admin/breakers").json()["lanes"]) > 2)  # noqa: PLR2004 - those of the four targets that most calls go to
    on.api.post("/admin/breakers/openai/gpt-5.1", json={"state": "open"})
    on.api.post("/admin/roles", json={"roles": {"analysis": "groq/llama-3.3-70b-versatile"}})


def _models(on: Stage) -> None:
    """Have one local model ready, one that the hub refuses, and one that is being downloaded."""
    for action, model in (("load", READY), ("pull", GATED)):
        on.api.post(f"/admin/models/{action}", json={"model": model}, timeout=120)
    with contextlib.suppress(httpx.ReadTimeout):  # it is answered when the download has ended
        on.api.post("/admin/models/pull", json={"model": SLOW}, timeout=1)


def _keys(on: Stage) -> None:
    """Have a key near the end of its budget, one far from it, one that is used up and one that is revoked."""
    wanted: list[dict[str, Any]] = [
        {"name": "web shop", "budget_day_usd": 0.0008, "budget_month_usd": 0.02, "rpm": 600},
        {"name": "support desk", "budget_month_usd": 25, "models": ["small", "medium"], "max_parallel": 4},
        {"name": "night report", "budget_day_usd": 0.0002, "rpm": 60, "expires_days": 30},
        {"name": "trial", "tpm": 20_000},
    ]
    keys = {each["name"]: on.api.post("/admin/keys", json=each).json()["key"] for each in wanted}
    on.api.post("/admin/keys/trial/revoke")
    for name, calls in (("web shop", 6), ("support desk", 3), ("night report", 4)):
        for _ in range(calls):
            body = {"model": "small" if name == "support desk" else "openai/gpt-4o", "messages": [_MESSAGE]}
            on.api.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {keys[name]}"})


_MESSAGE = {"role": "user", "content": "hello"}
_BEFORE: dict[str, Callable[[Stage], None]] = {"models": _models, "keys": _keys}


def _context(on: Stage, chrome: Browser, width: int, theme: str) -> BrowserContext:
    context = chrome.new_context(
        viewport={"width": width, "height": _SIZES[width]},
        base_url=on.url,
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    context.request.post("/login", form={"key": KEY}, max_redirects=0)
    return context


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


def _picture(page: Page, *, tall: bool) -> bytes:
    """Return what the browser shows, as WebP; where it is tall, the page as it scrolls."""
    size = page.viewport_size or {"width": 0, "height": 0}
    height = page.evaluate("document.documentElement.scrollHeight") if tall else size["height"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height, _TALL_PX), "scale": 1}
    options = {"format": "webp", "quality": _QUALITY, "captureBeyondViewport": tall, "clip": clip}
    told = page.context.new_cdp_session(page).send("Page.captureScreenshot", options)
    return base64.b64decode(told["data"])


if __name__ == "__main__":
    sys.exit(main())
