"""Lanes: one target with its breaker, its slots, and what was learned of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from app.guard.breaker import DEFAULTS, Breaker, Clock, Event, State, Thresholds
from app.guard.gate import Gate

if TYPE_CHECKING:
    from app.call import Target
    from app.config import BackendConfig
    from app.errors import SluiceError

MAX_LANES = 10_000
"""Callers may name any model of a backend; the oldest idle lanes are forgotten beyond this."""

Hook = Callable[["Target", State, State, Event], None]


class Lane:
    """One target, that is one (base URL, key, model).

    Attributes:
        config: of its backend, as last seen.
        last_error: the last error a call lost to, so that the real one can be told while the lane is out of use.
        refuses_prefill: learned: it answered a rescue's assistant message with an error.
        refuses_format: learned: it answered the ``response_format`` of a task with an error.
        name: what it is called among workers and hosts: the same name means the same place and the same key.
    """

    __slots__ = ("breaker", "config", "gate", "last_error", "name", "refuses_format", "refuses_prefill", "target")

    def __init__(self, target: Target, config: BackendConfig, name: str, breaker: Breaker) -> None:
        self.target = target
        self.config = config
        self.name = name
        self.breaker = breaker
        self.gate = Gate(config.slots, config.line)
        self.last_error: SluiceError | None = None
        self.refuses_prefill = False
        self.refuses_format = False

    def snapshot(self) -> dict[str, Any]:
        """Return the breaker's snapshot with the calls inside, those in line, and the slots."""
        gate = self.gate
        return self.breaker.snapshot() | {"in_use": gate.in_use, "waiting": gate.waiting, "slots": gate.slots}


class Lanes:
    """Every lane that was asked for, bounded.

    Args:
        hook: told of every change of a breaker.
        thresholds: of all breakers.
        clock: of all breakers; seconds, monotonic.

    Attributes:
        breakers: every lane's breaker by the lane's name.
    """

    def __init__(
        self, hook: Hook | None = None, thresholds: Thresholds = DEFAULTS, clock: Clock = time.monotonic
    ) -> None:
        self._lanes: dict[Target, Lane] = {}
        self._hook = hook
        self._thresholds = thresholds
        self._clock = clock
        self.breakers: dict[str, Breaker] = {}

    def of(self, config: BackendConfig, target: Target) -> Lane:
        """Return the lane of a target; another address or key makes it another lane."""
        lane = self._lanes.get(target)
        if lane is None or (lane.config is not config and lane.name != lane_name(config, target)):
            lane = self._new(config, target)
        elif lane.config is not config:
            lane.config = config
            lane.gate.resize(config.slots, config.line)
        return lane

    def _new(self, config: BackendConfig, target: Target) -> Lane:
        breaker = Breaker(self._clock, thresholds=self._thresholds)
        hook = self._hook
        if hook is not None:
            breaker.hooks.append(lambda old, new, event: hook(target, old, new, event))
        self._drop(target)
        lane = self._lanes[target] = Lane(target, config, lane_name(config, target), breaker)
        self.breakers[lane.name] = breaker
        self._forget()
        return lane

    def _drop(self, target: Target) -> None:
        old = self._lanes.pop(target, None)
        if old is not None:
            self.breakers.pop(old.name, None)
            old.breaker.adopt("closed")  # whoever watches hears that nothing is out of use here any more

    def _forget(self) -> None:
        if len(self._lanes) <= MAX_LANES:
            return
        crowded = len(self._lanes) > 2 * MAX_LANES
        idle = [
            target
            for target, lane in self._lanes.items()
            if not lane.gate.in_use and not lane.gate.waiting and (crowded or lane.breaker.state == "closed")
        ]
        for target in idle[: MAX_LANES // 10]:
            if self._lanes[target].breaker.forced is None:
                self._drop(target)

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))


def lane_name(config: BackendConfig, target: Target) -> str:
    """Return a lane's name: the target, and a fingerprint of its address and key that tells neither."""
    digest = hashlib.sha256(f"{config.base_url}\n{config.api_key}".encode()).hexdigest()
    return f"{target}#{digest[:12]}"
