"""From a verdict to a role, and from a chain with weights to one arm. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.call import Choice, Hints, Verdict
    from app.settings import Settings

TASK_COMPLEXITY = {
    "exercise-generation": 4,
    "progression": 4,
    "content-validation": 3,
    "theory-analysis": 5,
    "voicing": 5,
    "creative": 6,
    "tutorial": 7,
    "curriculum-planning": 8,
}
"""How complex the tasks are that people name in ``x-sluice-task``; a classifier would have to guess."""

_DETOURS = {
    "small": ("small", "medium", "large"),
    "medium": ("medium", "small", "large"),  # a smaller local model before a bill
    "large": ("large", "medium", "small"),
}
LAST_RESORT = ("accurate", "fast", "analysis", "code", "polish")
"""Where an ``auto`` call goes only when no tier is usable: the better first."""


def hinted(verdict: Verdict, hints: Hints) -> Verdict:
    """Let the caller's word win: an explicit complexity over the task's, the task's over the classifier's."""
    if hints.complexity is not None:
        reason = f"complexity {hints.complexity} was given with the call"
        return replace(verdict, complexity=hints.complexity, reasons=(reason, *verdict.reasons))
    if hints.task is None:
        return verdict
    task = hints.task.lower().removeprefix("task/").replace("_", "-").replace(" ", "-")
    complexity = TASK_COMPLEXITY.get(task)
    if complexity is None:
        return replace(verdict, reasons=(f"the task {task!r} has no complexity of its own", *verdict.reasons))
    return replace(
        verdict, complexity=complexity, reasons=(f"the task {task} has complexity {complexity}", *verdict.reasons)
    )


def tier(complexity: int | None, settings: Settings) -> str:
    """Return the tier of a complexity; one that nobody knows is large, to be safe."""
    if complexity is None or complexity > settings.tier_medium_max:
        return "large"
    return "small" if complexity <= settings.tier_small_max else "medium"


def auto_roles(verdict: Verdict, settings: Settings) -> tuple[str, ...]:
    """Return the roles for an ``auto`` call, in the order in which their chains are tried."""
    tiers = _DETOURS[tier(verdict.complexity, settings)]
    roles = ("code", *tiers) if verdict.kind == "code" else tiers
    return tuple(role for role in dict.fromkeys((*roles, *LAST_RESORT)) if role in settings.chains)


def next_tier(role: str | None) -> str:
    """Return where a weak answer of a role is escalated to."""
    return "medium" if role == "small" else "large"


def arm_of(chain: tuple[Choice, ...], key: str) -> tuple[tuple[Choice, ...], Choice | None]:
    """Put the arm that a key falls to in front of a chain; the same key always falls to the same arm.

    Returns:
        The chain in the order to try, and the arm; (chain, None) where it has no weights.
    """
    weighted = [choice for choice in chain if choice.weight]
    total = sum(choice.weight or 0 for choice in weighted)
    if not total:
        return chain, None
    point = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % total
    for choice in weighted:
        point -= choice.weight or 0
        if point < 0:
            return (choice, *(each for each in chain if each is not choice)), choice
    raise AssertionError("unreachable: the point lies below the sum of the weights")


def sticky_key(role: str, body: dict[str, Any], hints: Hints) -> str:
    """Return what an A/B arm sticks to: the session, the user, or how the conversation began."""
    who = hints.session or body.get("user")
    if who is None:
        who = next((str(each.get("content")) for each in body.get("messages") or () if each.get("role") == "user"), "")
        who = who[:2000]  # the beginning tells conversations apart; a long one costs no more
    return f"{role}\n{who}"
