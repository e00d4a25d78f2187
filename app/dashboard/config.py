"""What the dashboard takes from the settings: followed live, like the gateway does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.settings import Live, Settings

_LOOK_S = 0.5
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Config:
    """The settings in force, looked at again once in a while.

    Args:
        live: follows the ``.env`` file.
        clock: seconds, monotonic.
    """

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._looked = clock()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if self._clock() - self._looked >= _LOOK_S:
            self._looked = self._clock()
            self._live.poll()
        return self._live.current

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens, without a slash at the end."""
        settings = self.settings
        host = _ANY.get(settings.host, settings.host)
        return settings.dashboard_gateway_url.rstrip("/") or f"http://{host}:{settings.port}"

    @property
    def admin_key(self) -> str:
        """The key of the admin endpoints and of the dashboard itself; empty where none is set."""
        key = self.settings.admin_key
        return key.get_secret_value() if key is not None else ""

    @property
    def caller_key(self) -> str:
        """The key with which the playground calls; empty where the gateway asks for none."""
        key, keys = self.settings.dashboard_api_key, self.settings.api_keys
        return key.get_secret_value() if key is not None else next(iter(keys), "")


def refusal(settings: Settings) -> str | None:
    """Return why the dashboard must not start with these settings, or None."""
    if settings.dashboard_host in LOOPBACK or settings.admin_key is not None:
        return None
    return (
        f"ADMIN_KEY is not set while DASHBOARD_HOST={settings.dashboard_host} opens the dashboard to the network: "
        "set ADMIN_KEY, or leave DASHBOARD_HOST at 127.0.0.1"
    )
