"""Lanes: one target with its breaker, its slots, and what was learned of it."""

from __future__ import annotations

import hashlib
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
        name: what it is called among workers and hosts: the same name means the same place and the same key.
    """

    __slots__ = ("breaker", "gate", "last_error", "name", "refuses_prefill", "target")

    def __init__(self, target: Target, name: str, breaker: Breaker, gate: Gate) -> None:
        self.target = target
        self.name = name
        self.breaker = breaker
        self.gate = gate
        self.last_error: SluiceError | None = None
        self.refuses_prefill = False


class Lanes:
    """Every lane that was asked for, bounded.

    Attributes:
        breakers: every lane's breaker by the lane's name.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._hook = hook
        self.breakers: dict[str, Breaker] = {}

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
        name = lane_name(config, target)
        self.breakers[name] = breaker
        return Lane(target, name, breaker, Gate(config.slots, config.line))

    def _forget(self) -> None:
        if len(self._lanes) <= MAX_LANES:
            return
        for key, lane in list(self._lanes.items())[: MAX_LANES // 10]:
            if not lane.gate.in_use and not lane.gate.waiting and lane.breaker.forced is None:
                del self._lanes[key]
                self.breakers.pop(lane.name, None)

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))


def lane_name(config: BackendConfig, target: Target) -> str:
    """Return a lane's name: the target, and a fingerprint of its address and key that tells neither."""
    digest = hashlib.sha256(f"{config.base_url}\n{config.api_key}".encode()).hexdigest()
    return f"{target}#{digest[:12]}"
