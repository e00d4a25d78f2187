"""What every part of a task's or a pipeline's run needs, and what a run gives back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.call import Hints, SubCall
from app.trace import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.call import Ask, Target
    from app.gateway import Gateway
    from app.prompts.library import Shelf
    from app.prompts.spec import Task
    from app.settings import Settings

    Tell = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Context:
    """One call and all it is served with: one snapshot of the settings, one shelf of prompts.

    Attributes:
        tell: told of the progress; the caller may see it.
        created: Unix time, in seconds, that every chunk of the answer gives.
    """

    ask: Ask
    settings: Settings
    gateway: Gateway
    shelf: Shelf
    tell: Tell
    created: int = field(default_factory=lambda: int(time.time()))

    def until(self, deadline: float) -> Context:
        """Return the same with a sooner deadline, on the event loop's clock."""
        return replace(self, ask=replace(self.ask, deadline=min(self.ask.deadline, deadline)))


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task.

    Attributes:
        value: by the contract; the text where it has no schema.
        target: who answered; of several the first.
        usage: of all calls that were answered, those whose answer broke the contract too.
        finish: why the model stopped.
        told: what callers are told beside the answer.
    """

    value: Any
    target: Target
    usage: Usage
    finish: str = "stop"
    told: dict[str, Any] = field(default_factory=dict)


def added(usages: list[Usage]) -> Usage:
    """Return the sum of several usages."""
    return Usage(
        prompt=sum(each.prompt for each in usages),
        completion=sum(each.completion for each in usages),
        cached=sum(each.cached for each in usages),
        reasoning=sum(each.reasoning for each in usages),
        estimated=any(each.estimated for each in usages),
        cache_write=sum(each.cache_write for each in usages),
    )


def number(settings: Settings, told: float | str) -> float:
    """Return a number that a prompt file gives, itself or by the name of a setting."""
    return float(getattr(settings, told.lower())) if isinstance(told, str) else told


def hints_of(hints: Hints) -> Hints:
    """Return the caller's hints as they hold for a call of a task: its name is the prompt's, not the caller's."""
    return Hints(complexity=hints.complexity, session=hints.session, no_cache=hints.no_cache)


def sub_call(task: Task) -> SubCall:
    """Return what a call of a task brings along."""
    return SubCall(task.name, task.digest, task.spec.kind, task.spec.complexity)
