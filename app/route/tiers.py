"""From a verdict to a role, and from a chain with weights to one arm. Pure."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.call import led_by
from app.route.classify import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.call import Hints, SubCall, Target, Verdict
    from app.settings import Settings

TASKS = {
    "exercise-generation": ("creative", 4),
    "progression": ("creative", 4),
    "content-validation": ("analysis", 3),
    "theory-analysis": ("analysis", 5),
    "voicing": ("creative", 5),
    "creative": ("creative", 6),
    "tutorial": ("chat", 7),
    "curriculum-planning": ("creative", 8),
}
"""The kind and the complexity of tasks that people name in ``x-sluice-task``; a classifier would have to guess."""

_DETOURS = {
    "small": ("small", "medium", "large"),
    "medium": ("medium", "small", "large"),  # a smaller local model before a bill
    "large": ("large", "medium", "small"),
}
_BEGINNING, _PARTS = 2000, 8
LAST_RESORT = ("accurate", "fast", "analysis", "code", "polish")
"""Where an ``auto`` call goes only when no tier is usable: the better first."""


def hinted(verdict: Verdict, hints: Hints, sub: SubCall | None = None) -> Verdict:
    """Let the caller's word win: an explicit complexity over the task's, the task's over the classifier's."""
    if sub is not None:
        verdict = _of_prompt(verdict, sub)
    elif hints.task is not None:
        verdict = _of_task(
            verdict, hints.task.strip().lower().removeprefix("task/").replace("_", "-").replace(" ", "-")
        )
    if hints.complexity is not None:
        reason = f"complexity {hints.complexity} was given with the call"
        verdict = replace(verdict, complexity=hints.complexity, reasons=led_by(reason, verdict.reasons))
    return verdict


def _of_prompt(verdict: Verdict, sub: SubCall) -> Verdict:
    """Judge a call as the prompt file says; what it does not say stays as it was found."""
    reasons = verdict.reasons
    if sub.complexity is not None:
        reasons = led_by(f"the task {sub.task} has complexity {sub.complexity}", reasons)
    if sub.kind is not None:
        reasons = led_by(f"the task {sub.task} is of the kind {sub.kind}", reasons)
    return replace(
        verdict, kind=sub.kind or verdict.kind, complexity=sub.complexity or verdict.complexity, reasons=reasons
    )


def _of_task(verdict: Verdict, task: str) -> Verdict:
    """Judge a call by the name of its task; the name of a kind is a task too, of the complexity that was found."""
    if task in KINDS and task not in TASKS:
        return replace(verdict, kind=task, reasons=led_by(f"the call was said to be {task}", verdict.reasons))
    if task not in TASKS:
        return replace(verdict, reasons=led_by(f"the task {task!r} has no complexity of its own", verdict.reasons))
    kind, complexity = TASKS[task]
    reason = f"the task {task} has complexity {complexity}"
    return replace(verdict, kind=kind, complexity=complexity, reasons=led_by(reason, verdict.reasons))


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


def tiers_above(role: str | None) -> tuple[str, ...]:
    """Return where a weak answer of a role is escalated to, nearest first; nothing is above large."""
    if role == "small":
        return ("medium", "large")
    return () if role == "large" else ("large",)


def arm_of(weights: Mapping[Target, int], key: str) -> Target | None:
    """Return the arm that a key falls to, or None where there are no weights.

    By weighted rendezvous hashing (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005): the same key always
    falls to the same arm, and where an arm comes, goes or changes its weight, only the keys that must move do.
    """
    arms = {target: weight for target, weight in weights.items() if weight > 0}
    return min(arms, key=lambda target: _distance(f"{target}\n{key}") / arms[target], default=None)


def _distance(text: str) -> float:
    """Return a number that is exponentially distributed over texts, always the same for one text."""
    point = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return -math.log((point + 1) / 2**64)


def sticky_key(role: str, body: dict[str, Any], hints: Hints) -> str:
    """Return what an A/B arm sticks to: the session, the user, or how the conversation began."""
    who = hints.session or body.get("user")
    if not who:
        contents = (each.get("content") for each in body.get("messages") or () if each.get("role") == "user")
        who = _beginning(next(contents, None))
    return f"{role}\n{who}"


def _beginning(content: Any) -> str:
    """Return how a message begins: enough to tell conversations apart; a long one costs no more."""
    if isinstance(content, list):
        parts = (part.get("text") or part.get("image_url") or "" for part in content[:_PARTS])
        return "\n".join(str(part)[:_BEGINNING] for part in parts)
    return str(content)[:_BEGINNING] if content else ""
