"""What outlives a call and is shared by all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.admission import Limits
from app.flow import Flow
from app.guard.cache import AnswerCache, MemoryCache
from app.guard.flight import Flights
from app.guard.limits import Parallel, Rates
from app.ledger.keys import Keys
from app.prompts.library import Library

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.backend.registry import Backends
    from app.call import Ask
    from app.guard.board import Board
    from app.guard.lanes import Lanes
    from app.guard.share import Sharing
    from app.ledger.budgets import Budgets
    from app.ledger.db import Database
    from app.ledger.prices import Prices
    from app.ledger.responses import ResponseStore
    from app.settings import Live
    from app.telemetry.metrics import Metrics
    from app.trace import Record, Served


@dataclass(slots=True)
class Gateway:
    """The parts that main wires together.

    Attributes:
        hooks: each is fed one Record a call, after the answer is out; they must not block.
        after: each is fed every chat call that was served well, with what was served, after it; they must not block.
        dependencies: by name, what readiness is told of each: ``{"status": "ready|starting|degraded", "why": ...}``.
        reload: asks every worker of the host to read its configuration anew.
        sharing: what this process and the others tell each other about lanes.
        board: where the workers of this host meet; None where there is but one.
        samples: says of a trace's id whether the trace is recorded; None where nothing is traced.
        prices: what each target costs.
        late: records that wait for the prices to be loaded, in a gateway's first second.
        database: what is kept; None where DATABASE_URL is off. Usable once its ``trouble`` is None.
        keys: callers' keys; limits: how much of what they allow is used; budgets: of money, None where nothing is kept.
        cache: answers that were given before.
        flights: upstream calls under way that identical calls share.
        library: the prompt files: tasks and pipelines.
        responses: stored responses, once one was asked for.
        wake_batches: says that there is a batch to work on.
        serving: set once calls can come: what a start need not wait for waits for it.
        draining: set once no new call is to come; answers then close their connections.
        inflight: calls under way.
        flow: of streams; calls give way to it.
    """

    live: Live
    backends: Backends
    lanes: Lanes
    metrics: Metrics
    prices: Prices
    dependencies: dict[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
    hooks: list[Callable[[Record], None]] = field(default_factory=list)
    after: list[Callable[[Ask, Served], None]] = field(default_factory=list)
    reload: Callable[[], bool] = lambda: False
    sharing: Sharing | None = None
    board: Board | None = None
    samples: Callable[[str], bool] | None = None
    late: set[asyncio.Task[None]] = field(default_factory=set)
    database: Database | None = None
    limits: Limits = field(default_factory=lambda: Limits(Rates(), Parallel()))
    budgets: Budgets | None = None
    keys: Keys = field(default_factory=Keys)
    cache: AnswerCache = field(default_factory=lambda: AnswerCache(MemoryCache(0, 0)))
    flights: Flights = field(default_factory=Flights)
    library: Library = field(default_factory=Library)
    responses: ResponseStore | None = None
    wake_batches: Callable[[], None] = lambda: None
    serving: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    inflight: int = 0
    flow: Flow = field(default_factory=Flow)
