"""Which models the backends are known to have, from the price table of genai-prices (bundled, offline)."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from app.call import Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from genai_prices.types import Provider

PROVIDERS = {  # backend: genai-prices' name
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "groq": "groq",
    "workers-ai": "cloudflare",
    "openrouter": "openrouter",
}
"""In the order in which a bare model name is looked for: makers before resellers."""
_TUNED = re.compile(r"-(instruct|it|chat|versatile)$")

_TEXT_ONLY = re.compile(
    r"phi-?3\.5-mini|qwen-?2\.5|llama-?3\.[13]\b|llama-?3\.2-[13]b|mixtral|gpt-3\.5|coder|deepseek-(chat|coder|r1|v3)"
)
"""Families that their makers' model cards describe as text in, text out; whoever is not named here may see."""
_SEES = re.compile(r"vl\b|vision|omni")
_NO_EYES = frozenset({"vision", "image_url", "audio"})


def lacks(target: Target) -> frozenset[str]:
    """Return the abilities that a model is known to lack, wherever it runs."""
    name = target.model.lower()
    return _NO_EYES if _TEXT_ONLY.search(name) and not _SEES.search(name) else frozenset()


_TAKES_PREFILL = re.compile(r"^claude-(2|3|instant|4-)|^claude-(opus|sonnet|haiku)-4(-[0-5])?(-2\d{7})?$")
"""Models that continue an assistant's message; later ones refuse: platform.claude.com/docs/en/api/errors"""


def takes_prefill(target: Target) -> bool:
    """Whether a model is known to continue an assistant's message."""
    return target.backend == "anthropic" and bool(_TAKES_PREFILL.search(target.model.lower()))


@cache
def _provider(backend: str) -> Provider | None:
    from genai_prices.data_snapshot import get_snapshot  # 0.4 s: only when a name needs it

    wanted = PROVIDERS.get(backend)
    return next((each for each in get_snapshot().providers if each.id == wanted), None)


def short_names(model: str) -> Iterable[str]:
    """Yield every name by which people call a model: in full, without its vendor, without what it was tuned for."""
    name = model.lower()
    last = name.rsplit("/", 1)[-1]
    yield from (name, last, _TUNED.sub("", name), _TUNED.sub("", last))


@cache
def _index(backend: str) -> dict[str, str]:
    """Map every name of a backend's models to the full id; an exact id is never hidden by another's short name."""
    provider = _provider(backend)
    ids = [model.id for model in provider.models] if provider else []
    index: dict[str, str] = {}
    # Ids with a vendor first: OpenRouter's table also has bare ids of old variants.
    for model in sorted(ids, key=lambda each: "/" not in each):
        for name in short_names(model):
            index.setdefault(name, model)
    return index | {model.lower(): model for model in ids}


@lru_cache(maxsize=4096)
def owner(name: str, backends: tuple[str, ...]) -> Target | None:
    """Find the first of the backends whose catalogue has a model of this name."""
    wanted = name.lower()
    usable = set(backends)
    for backend in (each for each in PROVIDERS if each in usable):
        found = _index(backend).get(wanted)
        if found is not None:
            return Target(backend, found)
        provider = _provider(backend)
        if provider is not None and backend != "openrouter" and provider.find_model(wanted) is not None:
            return Target(backend, name)  # a dated version of a known model, e.g. gpt-4o-2024-08-06
    return None


def expand(target: Target) -> Target:
    """Return the target with the full id of its model, where OpenRouter's short name was written."""
    if target.backend != "openrouter" or "/" in target.model:
        return target
    return Target(target.backend, _index(target.backend).get(target.model.lower(), target.model))


@lru_cache(maxsize=4096)
def context_window(target: Target) -> int | None:
    """Return the model's context window in tokens, where the price table knows it."""
    provider = _provider(target.backend)
    model = provider.find_model(target.model) if provider else None
    return model.context_window if model else None
