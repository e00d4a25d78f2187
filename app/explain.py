"""A routing decision in words, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ON_WEAK = {
    "polish": "a weak one goes to the role polish, and the better of the two is served",
    "escalate": "a weak one is asked anew of the next tier, and the better of the two is served",
    "serve": "a weak one is served as it is, and the headers say so",
}


def explain(told: dict[str, Any]) -> str:
    """Return in words what ``POST /v1/route`` tells."""
    return "\n".join([*_prompt(told), *_verdict(told["verdict"]), *_plan(told["plan"]), *_after(told)])


def _prompt(told: dict[str, Any]) -> Iterator[str]:
    """Name the prompt file that a call goes through."""
    if "pipeline" in told:
        yield f"Pipeline: {told['pipeline']['prompt']}; what follows is for the stage whose output is its own"
        for name, stage in told["stages"].items():
            yield f"  stage {name}: {stage['task']['prompt']}, goes to {stage['plan']['candidates'][0]}"
    elif "task" in told:
        task = told["task"]
        yield f"Task: {task['prompt']}, role {task['role']}, complexity {task['complexity'] or 'as classified'}"


def _verdict(verdict: dict[str, Any]) -> Iterator[str]:
    kind, complexity = verdict["kind"] or "unjudged", verdict["complexity"] or "unknown"
    tokens = verdict["prompt_tokens"]
    size = "" if tokens is None else f", about {tokens} prompt tokens"
    yield f"Verdict: {kind}, complexity {complexity} of 10{size}"
    yield from (f"  because {reason}" for reason in verdict["reasons"])


def _plan(plan: dict[str, Any]) -> Iterator[str]:
    first, *others = plan["candidates"]
    yield f"Goes to: {first}" + (f", as role {plan['role']}" if plan["role"] else "")
    yield from (f"  because {reason}" for reason in plan["why"])
    if others:
        yield f"  if that fails, then {', then '.join(others)}"
    yield from (f"  not {each['target']}: {each['why']}" for each in plan["skipped"])
    if plan["dropped_turns"]:
        yield f"  without the {plan['dropped_turns']} oldest turns, which do not fit"


def _after(told: dict[str, Any]) -> Iterator[str]:
    plan = told["plan"]
    if "task" in told:
        yield "The answer is judged by the task's contract; one that breaks it is asked for again, then of the next."
    elif not plan["check"]:
        yield "The answer is served as it comes: a target that was asked for by name is not checked."
    else:
        yield f"The answer is checked; {_ON_WEAK[plan['on_weak']]}."
