"""What each target costs: the operator's file first, then what is known of the machine, then the bundled list."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from app.ledger.price_file import read_price_file
from app.ledger.price_list import PriceList, price_list, price_path
from app.route.price import Rates, Season, cost_usd, rates_at
from app.trace import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.call import Target
    from app.config import BackendConfig
    from app.settings import Live, Settings

PROVIDERS = {
    "anthropic": "anthropic",
    "gemini": "google",
    "groq": "groq",
    "openai": "openai",
    "openrouter": "openrouter",
    "workers-ai": "cloudflare",
}
"""The list's names of built-in backends: they are billed so whatever address they are reached at."""
_POLL_S = 1.0
_MOST_KEPT = 4096
_TOLD = "told by the backend"
_FREE = {"mlx", "ollama"}
"""Dialects of models that run on somebody's own machine: no bill comes for their tokens."""


class Prices:
    """Rates by target, each looked up once.

    Attributes:
        loaded: set once the bundled list can be read, or is known to be out of reach.
        list_trouble: why the list cannot be read; None while it can.
        file_trouble: why PRICES_FILE is not in force as it stands; None where it is.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._generation = live.generation
        self._list: PriceList | None = None
        self._file: Mapping[str, Rates] = {}
        self._stamp: tuple[str, int, int] | None = None
        self._known: dict[Target, tuple[Season, ...] | None] = {}
        self.loaded = asyncio.Event()
        self.list_trouble: str | None = None
        self.file_trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong, for people; None where nothing is."""
        return "; ".join(each for each in (self.list_trouble, self.file_trouble) if each) or None

    async def start(self) -> None:
        """Read what can be read at once; ``run`` does the rest."""
        await self._follow_file()
        for folder in _folders(self._live.current):
            if await asyncio.to_thread(price_path(folder).exists):
                await self._load([folder])
                return

    async def run(self) -> None:
        """Have the list written where it is not there yet, then follow PRICES_FILE."""
        if not self.loaded.is_set():
            await self.load()
        while True:
            await asyncio.sleep(_POLL_S)
            await self._follow_file()

    async def load(self) -> None:
        """Read the bundled list, written first where it is not there yet."""
        await self._load(_folders(self._live.current))

    async def _load(self, folders: list[Path]) -> None:
        for folder in folders:
            try:
                self._list = await price_list(folder)
            except (OSError, TimeoutError, ValueError) as error:
                self.list_trouble = f"the bundled price list cannot be read: {error or 'it took too long'}"
            else:
                self.list_trouble = None
                break
        self._known.clear()
        self.loaded.set()

    async def _follow_file(self) -> None:
        """Read PRICES_FILE where it has changed; one that is wrong changes nothing but ``file_trouble``."""
        name = self._live.current.prices_file
        stamp = _stamp(name) if name else None
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._file = await asyncio.to_thread(read_price_file, Path(name)) if name else {}
            self.file_trouble = None
        except (OSError, ValueError) as error:
            self.file_trouble = f"PRICES_FILE: {error}"
        self._known.clear()

    # -- rates ---------------------------------------------------------------------------------------------------------

    def rates(self, target: Target) -> Rates | None:
        """Return a target's rates now; None where it has no price."""
        if self._generation != self._live.generation:
            self._generation = self._live.generation
            self._known.clear()
        try:
            seasons = self._known[target]
        except KeyError:
            seasons = self._look_up(target)
        return None if seasons is None else rates_at(seasons, time.time())

    def _look_up(self, target: Target) -> tuple[Season, ...] | None:
        if len(self._known) >= _MOST_KEPT:  # callers can name models without end
            self._known.clear()
        found = self._found(target)
        if found is not None or self.loaded.is_set():
            self._known[target] = found
        return found

    def _found(self, target: Target) -> tuple[Season, ...] | None:
        own = self._file.get(str(target)) or self._file.get(f"{target.backend}/*")
        if own is not None:
            return (Season(own),)
        settings = self._live.current
        config = settings.backend_configs.get(target.backend)
        if config is None:
            return None
        provider = PROVIDERS.get(target.backend) or self._provider_at(config.base_url)
        if provider is not None:
            return self._list.find(provider, target.model) if self._list is not None else None
        return (Season(_local_rates(config, settings)),) if _is_own(config) else None

    def _provider_at(self, url: str) -> str | None:
        return self._list.provider_at(url) if self._list is not None else None

    def is_own(self, target: Target) -> bool:
        """Whether a target runs on a machine of one's own, so that no bill comes for its tokens."""
        config = self._live.current.backend_configs.get(target.backend)
        return config is not None and _is_own(config)

    # -- money ---------------------------------------------------------------------------------------------------------

    def priced(self, target: Target, usage: Usage, busy_s: float = 0.0) -> tuple[Decimal | None, str | None]:
        """Return what an attempt cost in USD, and the rates in words; None where the target has no price.

        Args:
            target: who was asked.
            usage: what it took; where the backend told the cost itself, that is it.
            busy_s: how long the target was busy with it.
        """
        if usage.cost_usd is not None:
            return Decimal(repr(usage.cost_usd)), _TOLD
        rates = self.rates(target)
        return (None, None) if rates is None else (cost_usd(rates, usage, busy_s), rates.text)

    def cost_usd(self, target: Target, usage: Usage, busy_s: float = 0.0) -> Decimal | None:
        """Return what an attempt cost in USD; None where the target has no price."""
        return self.priced(target, usage, busy_s)[0]

    def estimate_usd(self, target: Target, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """Return what a call with so many tokens would cost in USD; None where the target has no price."""
        return self.cost_usd(target, Usage(prompt_tokens, completion_tokens))


async def prices_of(live: Live) -> Prices:
    """Return prices that are loaded, for commands."""
    prices = Prices(live)
    await prices.start()
    if not prices.loaded.is_set():
        await prices.load()
    return prices


def _is_own(config: BackendConfig) -> bool:
    return config.local or config.devbox is not None or config.dialect in _FREE


def _local_rates(config: BackendConfig, settings: Settings) -> Rates:
    """Return the rates of a machine of one's own; the hour of this one is known where the operator told it."""
    if not config.local:
        return Rates(source="no bill for tokens")
    hour = settings.local_usd_per_hour + settings.local_watts * settings.local_usd_per_kwh / 1000
    return Rates(hour_usd=Decimal(repr(hour)), source="LOCAL_USD_PER_HOUR and LOCAL_WATTS" if hour else "local")


def _folders(settings: Settings) -> list[Path]:
    """Return where the list may be kept, the best place first: it is the same for all gateways of a user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return [Path(cache) / "sluice", Path(settings.data_dir), Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}"]


def _stamp(name: str) -> tuple[str, int, int]:
    try:
        found = Path(name).stat()
    except OSError:
        return (name, 0, 0)
    return (name, found.st_mtime_ns, found.st_size)
