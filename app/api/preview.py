"""``POST /v1/route``: what would become of a call, without sending anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.backend.catalog import Catalog
from app.call import Trace
from app.pipeline import decide
from app.prompts.spec import Task
from app.route import known
from app.tasks.context import hints_of, sub_call
from app.tasks.serve import find, is_named

if TYPE_CHECKING:
    from app.call import Ask
    from app.prompts.library import Shelf
    from app.settings import Settings


def preview(ask: Ask, settings: Settings, shelf: Shelf) -> dict[str, Any]:
    """Return the verdict, the plan and the estimate for a chat call; null where something is not known.

    For a task they are those of its calls, and ``task`` says which prompt; for a pipeline those of its output's stage,
    and ``stages`` has the same for each.

    Raises:
        SluiceError: as the call itself would.
    """
    if not is_named(ask):
        return _decided(ask, settings)
    found = find(ask.body["model"], shelf)
    if isinstance(found, Task):
        return _of_task(found, ask, settings)
    stages = {name: _of_task(task, ask, settings) for name, task in found.tasks.items()}
    return {**stages[found.spec.output], "pipeline": {"name": found.name, "prompt": found.version}, "stages": stages}


def _of_task(task: Task, ask: Ask, settings: Settings) -> dict[str, Any]:
    """Preview a call of a task, its inputs as they stand in the message."""
    body = {**ask.body, "model": task.spec.role}
    told = _decided(replace(ask, body=body, hints=hints_of(ask.hints), sub=sub_call(task)), settings)
    spec = {"role": task.spec.role, "complexity": task.spec.complexity}
    return {**told, "task": {"name": task.name, "prompt": task.version, **spec}}


def _decided(ask: Ask, settings: Settings) -> dict[str, Any]:
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
