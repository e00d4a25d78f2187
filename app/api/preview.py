"""``POST /v1/route``: what would become of a call, without sending anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.backend.catalog import Catalog
from app.pipeline import decide
from app.prompts.spec import Task
from app.route import known
from app.tasks.context import hints_of, sub_call
from app.tasks.serve import find, is_named
from app.trace import Trace

if TYPE_CHECKING:
    from app.call import Ask, Plan, Verdict
    from app.ledger.prices import Prices
    from app.prompts.library import Shelf
    from app.settings import Settings

_USUAL_ANSWER = 300
"""Tokens of an answer whose length the caller does not limit, for the estimate."""


def preview(ask: Ask, settings: Settings, shelf: Shelf, prices: Prices) -> dict[str, Any]:
    """Return the verdict, the plan and the estimate for a chat call; null where something is not known.

    For a task they are those of its calls, and ``task`` says which prompt; for a pipeline those of its output's stage,
    and ``stages`` has the same for each.

    Raises:
        SluiceError: as the call itself would.
    """
    if not is_named(ask):
        return _decided(ask, settings, prices)
    found = find(ask.body["model"], shelf)
    if isinstance(found, Task):
        return _of_task(found, ask, settings, prices)
    stages = {name: _of_task(task, ask, settings, prices) for name, task in found.tasks.items()}
    return {**stages[found.spec.output], "pipeline": {"name": found.name, "prompt": found.version}, "stages": stages}


def _of_task(task: Task, ask: Ask, settings: Settings, prices: Prices) -> dict[str, Any]:
    """Preview a call of a task, its inputs as they stand in the message."""
    body = {**ask.body, "model": task.spec.role}
    told = _decided(replace(ask, body=body, hints=hints_of(ask.hints), sub=sub_call(task)), settings, prices)
    spec = {"role": task.spec.role, "complexity": task.spec.complexity}
    return {**told, "task": {"name": task.name, "prompt": task.version, **spec}}


def _decided(ask: Ask, settings: Settings, prices: Prices) -> dict[str, Any]:
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
        "estimate": _estimate(ask, verdict, plan, settings, prices),
    }


def _estimate(ask: Ask, verdict: Verdict, plan: Plan, settings: Settings, prices: Prices) -> dict[str, Any]:
    """Return what the first candidate would cost, and the baseline; null where one has no price."""
    limits = (ask.body.get(name) for name in ("max_completion_tokens", "max_tokens"))
    answer = next((limit for limit in limits if isinstance(limit, int)), _USUAL_ANSWER)
    compared = {"cost_usd": plan.candidates[0], "baseline_usd": settings.baseline}
    found = {
        name: None if target is None else prices.estimate_usd(target, verdict.prompt_tokens or 0, answer)
        for name, target in compared.items()
    }
    return {name: None if usd is None else float(usd) for name, usd in found.items()}
