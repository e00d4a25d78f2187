"""What a call that runs or has ended is known by: the Trace that times it, its attempts, and the Record at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from app.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from app.call import Plan, Purpose, Target, Verdict

_BUILDING = ("receive", "auth", "parse", "build", "classify", "cache", "plan")
_WAITING = ("queue", "load", "connect", "retry", "first_token", "prompt", "answer", "stream", "decode", "polish")
"""Stages before anything is sent, and those of waiting for a model."""
Polished = Literal["yes", "no", "failed"]
Cache = Literal["hit", "miss", "off"]


@value
class Usage:
    """Tokens of one answer; ``prompt`` includes ``cached`` and ``cache_write``, ``completion`` includes ``reasoning``.

    ``estimated`` is true where the backend reported nothing and Sluice counted; ``cost_usd`` is the backend's own
    figure where it gives one.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost_usd: float | None = None
    cache_write: int = 0


@value
class Attempt:
    """One try at one target.

    Attributes:
        result: ``ok`` or the reason why it lost.
        sent: false where it was skipped.
        cost_usd: None where it has no price, where it used nothing, and until the call's bill is made.
        price: the rates that ``cost_usd`` was reckoned with, for people.
    """

    target: Target
    result: str
    duration_ms: float = 0.0
    usage: Usage | None = None
    sent: bool = True
    purpose: Purpose = "answer"
    cost_usd: Decimal | None = None
    price: str | None = None


class TraceContext(NamedTuple):
    """Where a call stands in a distributed trace, as W3C trace context has it; ids in hex.

    Attributes:
        span_id: of this call; parent_id: of the caller's span, empty where the trace begins here.
        sampled: whether the trace is recorded.
        state: the caller's ``tracestate``, passed on as it came.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    sampled: bool = True
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header for those whom this call asks."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


@dataclass(slots=True)
class Trace:
    """The one mutable companion of a call: where its time went, and what became of it so far.

    Stages are laps: ``stage(name)`` gives all time since the last lap to ``name``, so that the stages always add up to
    the total.

    Attributes:
        faults: of the first answer; weak: whether the answer that is served has any.
        cache: ``hit``, ``miss``, or ``off`` where the cache was not asked; None while that is not known.
        task, prompt_hash: which prompt file it went through, where it did.
        answered: what models answered to the calls that a task made, for those who look at it afterwards.
    """

    started_ns: int = field(default_factory=time.perf_counter_ns)
    stages: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    plan: Plan | None = None
    attempts: list[Attempt] = field(default_factory=list)
    rescued: list[str] = field(default_factory=list)
    faults: tuple[str, ...] = ()
    polished: Polished | None = None
    context: TraceContext | None = None
    cache: Cache | None = None
    weak: bool = False
    task: str | None = None
    prompt_hash: str | None = None
    answered: list[Answered] = field(default_factory=list)
    _last_ns: int = 0

    def __post_init__(self) -> None:
        self._last_ns = self._last_ns or self.started_ns

    def stage(self, name: str) -> None:
        """Close a lap: the time since the last one belongs to the stage ``name``."""
        now = time.perf_counter_ns()
        self.stages[name] = self.stages.get(name, 0) + now - self._last_ns
        self._last_ns = now

    def stage_at(self, name: str, at_ns: int) -> None:
        """Close a lap at a moment that has already passed, on ``time.perf_counter_ns``'s clock."""
        if at_ns > self._last_ns:
            self.stages[name] = self.stages.get(name, 0) + at_ns - self._last_ns
            self._last_ns = at_ns

    def branch(self) -> Trace:
        """Return a trace that goes on from here; ``absorb`` unites the two."""
        return replace(self, stages={}, attempts=[], rescued=[], answered=[])

    def absorb(self, other: Trace) -> None:
        """Take over where a branch's time went, and what it found out; attempts are told one by one."""
        for name, ns in other.stages.items():
            self.stages[name] = self.stages.get(name, 0) + ns
        other.stages.clear()
        self._last_ns = max(self._last_ns, other._last_ns)
        self.rescued, self.faults, self.polished, self.weak = other.rescued, other.faults, other.polished, other.weak

    def prompt_estimate(self) -> int:
        """Return about how many tokens the prompt has; 0 where nobody looked."""
        return (self.verdict.prompt_tokens if self.verdict is not None else None) or 0

    def total_ms(self) -> float:
        """Return the milliseconds from the start to the last lap."""
        return (self._last_ns - self.started_ns) / 1e6

    def adopt(self, other: Trace) -> None:
        """Take over what a part of the call, timed by a trace of its own, did and found."""
        self.attempts += other.attempts
        self.rescued += other.rescued
        self.answered += other.answered
        self.faults = tuple(dict.fromkeys((*self.faults, *other.faults)))
        self.verdict = self.verdict or other.verdict
        self.plan = self.plan or other.plan
        self.cache = self.cache or other.cache

    def split_ms(self) -> dict[str, float]:
        """Return the total in milliseconds, and its three parts, which add up to it."""
        stages, total = self.in_ms(), self.total_ms()
        build = sum(stages.get(name, 0.0) for name in _BUILDING)
        waited = sum(stages.get(name, 0.0) for name in _WAITING)
        return {
            "promptBuildMs": round(build, 3),
            "inferenceMs": round(waited, 3),
            "parseMs": round(max(total - build - waited, 0.0), 3),
            "totalMs": round(total, 3),
        }

    def in_ms(self) -> dict[str, float]:
        """Return the stages in milliseconds, rounded to a microsecond."""
        return {name: (ns + 500) // 1000 / 1000 for name, ns in self.stages.items()}  # round() is five times dearer


@value
class Record:
    """What one call was; built once, at its end, and handed to every hook.

    Attributes:
        outcome: ``ok``, ``error``, ``abandoned`` (the caller left) or ``cut`` (an error event ended the stream).
        error_type: the fault label where there was an error.
        backend_ms: time spent waiting for backends; the rest of ``total_ms`` is Sluice's own.
        faults: of the first answer, before any polish.
        chars: length of the answer that was served; code_block: whether it holds one; None where nobody looked.
        task: the prompt file that made the call; prompt_hash: of its text.
        cache: whether the answer came from memory; None where the endpoint has none.
        cost_usd: all attempts together; None where one of them has no price.
        baseline: the target that the call is compared with; baseline_usd: what it would have cost there.
        saved_usd: baseline less cost, negative where the call cost more.
        why: why it was judged and sent as it was; quotes nothing of the prompt.
        key: the id of the caller's key, where it has one in the database.
        prompt, answer: what was asked (JSON) and served; only where LOG_CONTENT is on.
    """

    request_id: str
    endpoint: str
    tenant: str
    stream: bool
    outcome: str
    status: int
    target: Target | None
    role: str | None
    verdict: Verdict | None
    attempts: tuple[Attempt, ...]
    usage: Usage | None
    stages_ms: dict[str, float]
    total_ms: float
    backend_ms: float
    first_token_ms: float | None = None
    per_token_ms: float | None = None
    error_type: str | None = None
    rescued: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    polished: Polished | None = None
    arm: Target | None = None
    chars: int | None = None
    code_block: bool | None = None
    context: TraceContext | None = None
    task: str | None = None
    prompt_hash: str | None = None
    cache: Cache | None = None
    cost_usd: Decimal | None = None
    baseline: Target | None = None
    baseline_usd: Decimal | None = None
    saved_usd: Decimal | None = None
    prompt: str | None = None
    answer: str | None = None
    why: tuple[str, ...] = ()
    key: str | None = None


@value
class Answered:
    """One answer of a model: that of a call, or of one of the calls that a task makes.

    Attributes:
        body: the chat body that it answers.
        role: whose chain was asked; target: who answered, before any polish.
        text: what was served; finish: why it ended.
        read: judges a text by the contract of the task and returns its value; raises ValueError where it is broken.
    """

    body: dict[str, Any]
    role: str
    target: Target
    text: str
    finish: str | None
    verdict: Verdict | None = None
    usage: Usage | None = None
    task: str = ""
    prompt_hash: str = ""
    read: Callable[[str, str | None], Any] | None = None


@value
class Served:
    """A call that was served well, for those who look at it afterwards.

    Attributes:
        record: of the call.
        answered: works out what the models answered; not for every call, as it takes a while.
    """

    record: Record
    answered: Callable[[], Sequence[Answered]]
