"""The pages, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from app.dashboard.pages import calls, keys, lanes, models, money, overview, parity, playground, roles
from app.dashboard.shell import Page, shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.dashboard.config import Config
    from app.dashboard.gateway import Gateway
    from app.dashboard.live import Live

_MODULES = (overview, calls, money, lanes, models, roles, parity, keys, playground)
PAGES: tuple[Page, ...] = tuple(each.PAGE for each in _MODULES)
"""In the order of their links."""


def install(gateway: Gateway, config: Config) -> None:
    """Register every page with NiceGUI."""
    for each in PAGES:
        _register(each, gateway, config)


def _register(page: Page, gateway: Gateway, config: Config) -> None:
    async def show(build: Callable[[Live], None]) -> None:
        with shell(gateway, page, PAGES, locked=bool(config.admin_key)) as live:
            build(live)
            await live.begin()

    @ui.page(page.path)
    async def whole() -> None:
        await show(page.build)

    build_one = page.build_one
    if build_one is not None:

        @ui.page(f"{page.path}/{{name:path}}")
        async def one(name: str) -> None:
            await show(lambda live: build_one(live, name))
