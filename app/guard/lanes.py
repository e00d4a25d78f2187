"""Lanes: one target with its breaker, its slots, and what was learned of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from app.guard.breaker import Breaker, Event, State
from app.guard.gate import Gate

if TYPE_CHECKING:
    from app.call import BackendConfig, Target
    from app.errors import SluiceError

MAX_LANES = 10_000
"""Callers may name any model of a backend; the lanes that were least lately used are forgotten beyond this."""

Hook = Callable[["Target", State, State, Event], None]


class Lane:
    """One (base URL, model).

    Attributes:
        last_error: the last error a call lost to, so that the real one can be told while the lane is out of use.
        refuses_prefill: learned: it answered a rescue's assistant message with an error.
    """

    __slots__ = ("breaker", "gate", "last_error", "refuses_prefill", "target")

    def __init__(self, target: Target, breaker: Breaker, gate: Gate) -> None:
        self.target = target
        self.breaker = breaker
        self.gate = gate
        self.last_error: SluiceError | None = None
        self.refuses_prefill = False


class Lanes:
    """Every lane that was asked for, bounded."""

    def __init__(self, hook: Hook | None = None) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._hook = hook

    def of(self, config: BackendConfig, target: Target) -> Lane:
        """Return the lane of a target, with the slots that the configuration gives it."""
        key = (config.base_url, target.model)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._new(config, target)
            self._forget()
        elif lane.gate.slots != config.slots or lane.gate.line != config.line:
            lane.gate.resize(config.slots, config.line)
        return lane

    def _new(self, config: BackendConfig, target: Target) -> Lane:
        breaker = Breaker()
        hook = self._hook
        if hook is not None:
            breaker.hooks.append(lambda old, new, event: hook(target, old, new, event))
        return Lane(target, breaker, Gate(config.slots, config.line))

    def _forget(self) -> None:
        if len(self._lanes) <= MAX_LANES:
            return
        for key, lane in list(self._lanes.items())[: MAX_LANES // 10]:
            if not lane.gate.in_use and not lane.gate.waiting and lane.breaker.forced is None:
                del self._lanes[key]

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def find(self, target: str) -> Lane | None:
        """Return the lane of ``backend/model-id`` if it was ever asked for."""
        return next((lane for lane in self._lanes.values() if str(lane.target) == target), None)
