"""The pages, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.dashboard.pages import calls, keys, lanes, models, money, overview, playground, roles

if TYPE_CHECKING:
    from app.dashboard.config import Config
    from app.dashboard.gateway import Gateway

_ALL = (overview, calls, money, lanes, models, roles, keys, playground)


def install(gateway: Gateway, config: Config) -> None:
    """Register every page with NiceGUI."""
    for each in _ALL:
        each.install(gateway, config)
