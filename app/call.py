"""The values that flow through one call: Ask -> Verdict -> Plan -> Answer -> Record, and the Trace that times it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from app.form import Form

_WEIGHT = re.compile(r"@(\d+)$")

_BUILDING = ("receive", "auth", "parse", "build", "classify", "cache", "plan")
_WAITING = ("queue", "load", "connect", "retry", "first_token", "prompt", "answer", "stream", "decode", "polish")
"""Stages before anything is sent, and those of waiting for a model."""

OnWeak = Literal["polish", "escalate", "serve"]
Polished = Literal["yes", "no", "failed"]
Purpose = Literal["answer", "draft", "polish", "escalate", "judge", "shadow", "classify"]
"""What an attempt was for; a draft is an answer in whose place a better one was served."""
Cache = Literal["hit", "miss", "off"]


class Target(NamedTuple):
    """A model at a backend, written ``backend/model-id``."""

    backend: str
    model: str

    def __str__(self) -> str:
        return f"{self.backend}/{self.model}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Split ``backend/model-id`` at the first slash.

        Raises:
            ValueError: there is no backend or no model in the text.
        """
        backend, slash, model = text.strip().partition("/")
        if not slash or not backend or not model:
            raise ValueError(f"{text!r} is not a target: write backend/model-id, e.g. groq/llama-3.3-70b-versatile")
        return cls(backend.lower(), model)


class Choice(NamedTuple):
    """One link of a chain: a target and its A/B weight (None where none was written)."""

    target: Target
    weight: int | None = None

    def __str__(self) -> str:
        return str(self.target) if self.weight is None else f"{self.target}@{self.weight}"

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``backend/model-id`` or ``backend/model-id@50``; only a trailing ``@<integer>`` is a weight."""
        text = text.strip()
        found = _WEIGHT.search(text)
        if found is None:
            return cls(Target.parse(text))
        return cls(Target.parse(text[: found.start()]), int(found.group(1)))


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one backend may take, in seconds; the names are those of Settings."""

    connect_s: float = 5.0
    first_content_s: float = 10.0
    answer_s: float = 120.0
    idle_s: float = 15.0
    deadline_s: float = 600.0


@dataclass(frozen=True, slots=True)
class OllamaOptions:
    """How an Ollama is spoken to.

    Attributes:
        native: whether over its own ``/api/chat``, which takes a context size, instead of its OpenAI endpoint.
        num_ctx: tokens of context that native calls ask for.
        keep_alive: how long it keeps a model loaded after its last use, in Ollama's notation, e.g. ``5m``.
        load_s: how long it may take to load one.
    """

    native: bool = False
    num_ctx: int = 8192
    keep_alive: str = "5m"
    load_s: float = 120.0


@dataclass(frozen=True, slots=True)
class DevboxOptions:
    """A Runloop devbox that answers once it is awake.

    Attributes:
        api_url: of Runloop's control API; api_key: for it.
        devbox_id: the box to use; where it is empty, one is found or created from ``blueprint_id``.
        tunnel: whether Ollama is reached through a tunnel; else by executed commands.
        tunnel_url: the tunnel's address with the placeholders ``{port}`` and ``{key}``.
        wait: whether a call waits for a sleeping box although another candidate is left.
        wake_timeout_s: how long a call waits, and how long a box may take to start.
        idle_suspend_s: a box created here is suspended by Runloop after so many seconds without use.
    """

    api_url: str
    api_key: str = field(repr=False)
    devbox_id: str = ""
    blueprint_id: str = ""
    tunnel: bool = True
    tunnel_url: str = ""
    wait: bool = True
    wake_timeout_s: float = 120.0
    idle_suspend_s: int = 600


@dataclass(frozen=True, slots=True)
class AnthropicOptions:
    """How Anthropic's own wire is spoken.

    Attributes:
        version: the ``anthropic-version``; from 2026-10-21 on it takes no sampling parameters.
        max_tokens: the longest answer where the caller names no limit, which this wire asks for.
    """

    version: str = "2026-10-21"
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """Everything there is to know of one backend before it is called.

    Attributes:
        dialect: which quirks its wire has; a key of the catalogue in app.backend.catalog.
        local: whether it is on this machine: no remote connection, no bill.
        problem: the one thing to set before it can be used, or None.
        prefill: whether its models continue an assistant message; None where nobody said.
        context_window: tokens, or None where it depends on the model.
        slots: calls at once per target; line: calls that may wait for a slot.
        ollama: where it is an Ollama, how it is spoken to.
        devbox: where it is a devbox that has to be woken, which.
        pulls: for a devbox: models that some role names; others are used if they are there, and never downloaded.
        wires: those beside the chat's that the operator says it has, see app.backend.catalog.
        anthropic: where it speaks Anthropic's wire, how.
        engines: for local models: base URLs of engines elsewhere; empty means one on this host.
        models: for local models: those that may be loaded; None allows all.
        environment: for local models: what the engine's process is told.
    """

    name: str
    base_url: str
    api_key: str = field(repr=False, default="")
    dialect: str = "openai"
    local: bool = False
    problem: str | None = None
    limits: Limits = Limits()
    prefill: bool | None = None
    context_window: int | None = None
    slots: int = 256
    line: int = 1024
    ollama: OllamaOptions | None = None
    devbox: DevboxOptions | None = None
    pulls: frozenset[str] = frozenset()
    wires: frozenset[str] = frozenset()
    anthropic: AnthropicOptions | None = None
    engines: tuple[str, ...] = ()
    models: frozenset[str] | None = None
    environment: tuple[tuple[str, str], ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Hints:
    """What the caller said about the call besides the body; explicit hints win over the classifier.

    ``progress`` asks for events where a task or a pipeline would tell its progress by comments.
    """

    task: str | None = None
    complexity: int | None = None
    session: str | None = None
    no_cache: bool = False
    performance: bool = False
    progress: bool = False


@dataclass(frozen=True, slots=True)
class SubCall:
    """What a call that is made for a task brings along: the prompt's word, and who broke the contract before.

    Attributes:
        task: its name; prompt_hash: which version of its file.
        kind, complexity: what the prompt file says; None leaves it to the classifier.
        but: targets that are not to be asked.
    """

    task: str
    prompt_hash: str
    kind: str | None = None
    complexity: int | None = None
    but: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Native:
    """What the caller said on another wire, for targets that have it: they get the caller's own words.

    Attributes:
        wire: closed set: ``responses``, ``messages``, ``completions``.
        body: in that wire's shape.
        chat: its translation, which is the body of the Ask. Once a stage works on another body, the caller's own words
            are no longer what is asked, and only the chat counts.
        needs: abilities that only a target with this wire has.
        headers: of the caller's, that belong to the wire.
    """

    wire: str
    body: dict[str, Any]
    chat: dict[str, Any]
    needs: frozenset[str] = frozenset()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a caller's key allows; None is no limit. A key that stands in API_KEYS has none of this.

    Attributes:
        id: stays the same when the key is rotated.
        name: given by the operator, for people.
        tenant: whom the ledger names and whose cached answers are found.
        models: patterns of what may stand in ``model``; empty allows all.
        rpm, tpm: calls and tokens a minute; max_parallel: calls at once.
        day_usd, month_usd: what may be spent in a day and in a month, UTC.
        expires_at: seconds since 1970.
    """

    id: str
    name: str
    tenant: str
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    day_usd: Decimal | None = None
    month_usd: Decimal | None = None
    expires_at: float | None = None

    @property
    def limited(self) -> bool:
        """Whether calls with it are counted as they come."""
        return self.rpm is not None or self.tpm is not None or self.max_parallel is not None

    @property
    def budgeted(self) -> bool:
        """Whether what its calls cost is held against a budget."""
        return self.day_usd is not None or self.month_usd is not None


@dataclass(frozen=True, slots=True)
class Ask:
    """One parsed client call.

    Attributes:
        endpoint: closed set: ``chat``, ``embeddings``, ...
        body: the decoded JSON object; never changed.
        hints: see Hints.
        tenant: who is asking; ``anonymous`` where no key is asked for.
        deadline: absolute, on the event loop's clock, in seconds.
        request_id: as sent to the caller in ``x-request-id``.
        native: the caller's own words, where they came on another wire than the chat's.
        key: what the caller's key allows; None where that is everything.
        sub: set where it is made for a task: then its contract judges the answer, and not the quality check.
        form: the body of an endpoint that takes files; ``body`` then has its fields.
        background: whether nobody waits for the answer, so that it gives way to calls that somebody waits for.
        purpose: what its attempts are for, as the ledger keeps it.
    """

    endpoint: str
    body: dict[str, Any]
    hints: Hints
    tenant: str
    deadline: float
    request_id: str
    native: Native | None = None
    key: KeyTerms | None = None
    sub: SubCall | None = None
    form: Form | None = None
    background: bool = False
    purpose: Purpose = "answer"

    @property
    def stream(self) -> bool:
        """Whether the caller wants server-sent events."""
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk of a stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the classifier says of an Ask.

    Attributes:
        kind: ``code``, ``chat``, ``extraction``, ``translation``, ``summarise``, ``math``, ``creative``,
            ``analysis`` ...; None where nothing judged it.
        complexity: 1 to 10, or None.
        prompt_tokens: an estimate.
        reasons: sentences a person can read.
    """

    kind: str | None = None
    complexity: int | None = None
    prompt_tokens: int | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Candidates in order, what happens to the answer, and why.

    Attributes:
        candidates: targets to try, first to last; never empty.
        role: the role the chain came from, or None where the caller named targets.
        skipped: targets left out, each with the reason.
        check: whether the answer is judged by quality checks.
        on_weak: what happens to a weak answer.
        arm: the target that the A/B weights chose, or None where the chain has none.
        messages: the messages that fit, where turns had to be dropped; None: all of them.
        dropped_turns: how many were.
        why: sentences a person can read.
    """

    candidates: tuple[Target, ...]
    role: str | None = None
    skipped: tuple[tuple[Target, str], ...] = ()
    check: bool = False
    on_weak: OnWeak = "serve"
    arm: Target | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    dropped_turns: int = 0
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
        self.stage_at(name, time.perf_counter_ns())

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
        return {name: round(ns / 1e6, 3) for name, ns in self.stages.items()}


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Served:
    """A call that was served well, for those who look at it afterwards.

    Attributes:
        record: of the call.
        answered: works out what the models answered; not for every call, as it takes a while.
    """

    record: Record
    answered: Callable[[], Sequence[Answered]]
