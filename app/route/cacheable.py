"""Which calls may be answered from the cache, and what makes two calls the same. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from app.route.tiers import tiers_above

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.call import Ask, Plan, Verdict
    from app.settings import Settings

_IRRELEVANT = frozenset(
    {
        *("model", "models"),  # what they came to mean is in the key: the plan's first candidate
        *("stream", "stream_options"),  # the same answer in another dress
        *("user", "safety_identifier", "metadata"),  # who asks and why; the tenant is in the key
        *("store", "service_tier", "prompt_cache_key", "prompt_cache_retention"),  # keeping, speed and price
    }
)
"""Fields that OpenAI describes as without influence on what is answered. Every other one counts, known or not."""
_NEVER = ("web_search_options", "plugins")
"""With these an answer depends on the day."""
_ENDPOINTS = {"chat", "embeddings"}
_WHOLE = {"stop", "tool_calls", "function_call"}
"""Reasons to finish that a whole answer has; ``length`` is a truncated one, ``content_filter`` none."""


def cacheable(ask: Ask, settings: Settings) -> bool:
    """Whether a call may be answered from the cache: one whose answer does not depend on chance, or all if so set."""
    if settings.cache == "off" or ask.hints.no_cache or ask.endpoint not in _ENDPOINTS:
        return False
    if ask.sub is not None:
        return False  # its contract is judged later: an answer that breaks it must not be kept
    if any(ask.body.get(name) for name in _NEVER):
        return False
    return settings.cache == "all" or ask.endpoint == "embeddings" or ask.body.get("temperature") == 0


def cache_key(ask: Ask, verdict: Verdict, plan: Plan, settings: Settings, polish_prompt: str) -> str:
    """Return what two calls have in common that get the same answer.

    The plan's first candidate stands for the model's name: once a role is changed, its old answers are not found.

    Args:
        ask: the call, with the messages that fit.
        verdict: of the call; its kind decides what a weak answer is.
        plan: of the call.
        settings: the snapshot that this call sees.
        polish_prompt: by which a weak answer would be polished; empty where it would not.
    """
    first = plan.candidates[0]
    body = {name: value for name, value in ask.body.items() if name not in _IRRELEVANT}
    parts: list[Any] = [ask.tenant, ask.endpoint, str(first), settings.backend_configs[first.backend].base_url, body]
    if ask.native is not None:
        own = {name: value for name, value in ask.native.body.items() if name not in _IRRELEVANT}
        parts += [ask.native.wire, own, ask.native.headers]
    if plan.check and plan.on_weak != "serve":
        roles = ("polish",) if plan.on_weak == "polish" else tiers_above(plan.role)
        menders = [str(choice.target) for role in roles for choice in settings.chains.get(role, ())]
        parts += [plan.on_weak, verdict.kind, menders, polish_prompt]
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=24).hexdigest()


def whole(reasons: Iterable[Any]) -> bool:
    """Whether every choice of an answer ended of itself; the reasons are its ``finish_reason`` values."""
    return all(reason in _WHOLE for reason in reasons)
