"""Token counts as each wire tells them, read into one shape: the prompt includes all of its parts."""

from __future__ import annotations

from typing import Any

from app.trace import Usage


def read_usage(told: Any) -> Usage | None:
    """Read a usage object of whatever wire; None where there is none.

    OpenAI's chat and Responses and all that follow them (with OpenRouter's ``cost``) count cached tokens as part of the
    prompt. Anthropic's own counts them beside it: they are added here.
    """
    if not isinstance(told, dict) or not told:
        return None
    if "cache_read_input_tokens" in told or "cache_creation_input_tokens" in told:
        return _anthropic(told)
    responses = "input_tokens" in told and "prompt_tokens" not in told
    asked, answered = ("input_tokens", "output_tokens") if responses else ("prompt_tokens", "completion_tokens")
    details, spent = _object(told.get(f"{asked}_details")), _object(told.get(f"{answered}_details"))
    return Usage(
        prompt=_count(told.get(asked)),
        completion=_count(told.get(answered)),
        cached=_count(details.get("cached_tokens")),
        reasoning=_count(spent.get("reasoning_tokens")),
        cost_usd=_cost(told),
        cache_write=_count(details.get("cache_write_tokens")),
    )


def _anthropic(told: dict[str, Any]) -> Usage:
    """Read the usage of ``/v1/messages``."""
    read, written = _count(told.get("cache_read_input_tokens")), _count(told.get("cache_creation_input_tokens"))
    return Usage(
        prompt=_count(told.get("input_tokens")) + read + written,
        completion=_count(told.get("output_tokens")),
        cached=read,
        cache_write=written,
    )


def _cost(told: dict[str, Any]) -> float | None:
    """Return what the backend says the call cost, in USD.

    Where the caller's own key pays the provider behind OpenRouter, ``cost`` is OpenRouter's fee alone.
    """
    cost = _amount(told.get("cost"))
    behind = _amount(_object(told.get("cost_details")).get("upstream_inference_cost"))
    return cost + behind if cost is not None and behind is not None and told.get("is_byok") is True else cost


def _amount(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    return float(value) if known and isinstance(value, int | float) else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
