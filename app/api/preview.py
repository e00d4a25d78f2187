"""``POST /v1/route``: what would become of a call, without sending anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.backend.catalog import Catalog
from app.call import Trace
from app.pipeline import decide
from app.route import known

if TYPE_CHECKING:
    from app.call import Ask
    from app.settings import Settings


def preview(ask: Ask, settings: Settings) -> dict[str, Any]:
    """Return the verdict, the plan and the estimate for a chat call; null where something is not known.

    Raises:
        SluiceError: as the call itself would.
    """
    verdict, plan = decide(ask, settings, Catalog(settings, known.context_window), Trace())
    return {
        "verdict": {
            "kind": verdict.kind,
            "complexity": verdict.complexity,
            "prompt_tokens": verdict.prompt_tokens,
            "reasons": list(verdict.reasons),
        },
        "plan": {
            "candidates": [str(target) for target in plan.candidates],
            "skipped": [{"target": str(target), "why": why} for target, why in plan.skipped],
            "role": plan.role,
            "check": plan.check,
            "on_weak": plan.on_weak,
            "arm": None if plan.arm is None else str(plan.arm),
            "dropped_turns": plan.dropped_turns,
            "why": list(plan.why),
        },
        "estimate": {"cost_usd": None, "baseline_usd": None},
    }
