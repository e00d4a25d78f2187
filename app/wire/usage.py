"""Usage in the shapes of the wires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.trace import Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return a chat's usage object; an estimate says that it is one."""
    told: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
    if usage.cached:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    if usage.reasoning:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    if usage.estimated:
        told["estimated"] = True
    return told
