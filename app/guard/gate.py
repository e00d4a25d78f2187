"""Admission to a lane: a number of slots and a bounded waiting line, first come first served."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import Callable

# Weight of the newest hold time in the moving average: RFC 6298's 1/8 for round-trip times, the same kind of series.
_WEIGHT = 1 / 8
# Told before the first call has ended, and the bounds of what a caller is told: less than 1 s cannot be said in
# Retry-After's whole seconds, and over a minute is a guess that no line of ours can make good.
_UNKNOWN_S = 1.0
_LEAST_S = 1.0
_MOST_S = 60.0
_RESERVED = 4
"""One slot in so many, rounded up, is kept free of calls that nobody waits for, where there is more than one."""


class Full(SluiceError):  # noqa: N818 - as asyncio.QueueFull
    """Every slot is taken and the line is full: an input of the plan, and 503 with Retry-After if nobody else can."""

    status = 503
    code = "overloaded"
    fault = "sluice_overloaded"


class LineTimeout(Full):
    """The call waited in line until its limit and got no slot."""


class Slot:
    """One place inside the gate. ``leave`` it once; a second time is nothing, so that ``finally`` may call it too."""

    __slots__ = ("_background", "_entered_at", "_gate")

    def __init__(self, gate: Gate, entered_at: float, *, background: bool = False) -> None:
        self._gate: Gate | None = gate
        self._background = background
        self._entered_at = entered_at

    def leave(self) -> None:
        """Give the place to the next in line."""
        gate = self._gate
        if gate is not None:
            self._gate = None
            gate._left(self._entered_at, background=self._background)  # noqa: SLF001 - two halves of one thing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Gate:
    """Slots and line of one lane; for one event loop.

    Attributes:
        slots: how many calls may be inside.
        line: how many may wait.
        in_use: how many are inside now; more than ``slots`` only after ``resize`` made it smaller.
        background: how many of these nobody waits for. They come in last, and leave some slots free: a call that
            somebody waits for finds one.
    """

    __slots__ = ("_clock", "_hold_s", "_patient", "_waiters", "background", "in_use", "line", "slots")

    def __init__(self, slots: int, line: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.in_use = 0
        self.background = 0
        self._patient: dict[asyncio.Future[None], None] = {}
        self._clock = clock
        self._hold_s: float | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}  # an ordered set: any of them may leave the line
        self._set(slots, line)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether one more call would be turned away."""
        return self.in_use >= self.slots and len(self._waiters) >= self.line

    def try_enter(self) -> Slot | None:
        """Take a free slot, or None. Nobody in line is overtaken: while there is a line there is no free slot."""
        if self.in_use >= self.slots:
            return None
        self.in_use += 1
        return Slot(self, self._clock())

    async def enter(self, deadline: float, *, background: bool = False) -> Slot:
        """Take a slot, waiting in line until ``deadline``, which is absolute on the event loop's clock, in seconds.

        Args:
            deadline: until when.
            background: nobody waits for the call: it gives way to all others, and is no part of their line.

        Raises:
            Full: the line has no room.
            LineTimeout: no slot came free in time.
        """
        if background:
            return await self._enter_last(deadline)
        slot = self.try_enter()
        if slot is not None:
            return slot
        if len(self._waiters) >= self.line:
            raise Full("Every slot is taken and the waiting line is full.", retry_after_s=self.retry_after_s())
        await self._wait(deadline, self._waiters)
        return Slot(self, self._clock())

    async def _enter_last(self, deadline: float) -> Slot:
        """Take a slot that nobody else wants."""
        if self._spare() and not self._patient:
            self.in_use += 1
            self.background += 1
        else:
            await self._wait(deadline, self._patient)
        return Slot(self, self._clock(), background=True)

    def _spare(self) -> bool:
        """Whether there is a slot for a call that nobody waits for."""
        return not self._waiters and self.in_use < self.slots - self._reserve()

    def _reserve(self) -> int:
        return -(-self.slots // _RESERVED) if self.slots > 1 else 0

    async def _wait(self, deadline: float, line: dict[asyncio.Future[None], None]) -> None:
        turn = asyncio.get_running_loop().create_future()
        line[turn] = None
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            self._withdraw(turn, line)
            raise LineTimeout("No slot came free in time.", retry_after_s=self.retry_after_s()) from None
        except BaseException:
            self._withdraw(turn, line)
            raise

    def _withdraw(self, turn: asyncio.Future[None], line: dict[asyncio.Future[None], None]) -> None:
        """Leave the line; a slot that was handed over in the same instant goes to the next."""
        line.pop(turn, None)
        if turn.done() and not turn.cancelled():
            self.in_use -= 1
            self.background -= line is self._patient
            self._hand_over()

    def _left(self, entered_at: float, *, background: bool = False) -> None:
        self.background -= background
        held_s = self._clock() - entered_at
        self._hold_s = held_s if self._hold_s is None else self._hold_s + _WEIGHT * (held_s - self._hold_s)
        self.in_use -= 1
        if self._waiters or self._patient:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give free slots to the first in line. A slot counts as taken from here on, before its new holder has run."""
        while self.in_use < self.slots and self._waiters:
            turn = next(iter(self._waiters))
            del self._waiters[turn]
            if not turn.done():
                turn.set_result(None)
                self.in_use += 1
        while self._patient and self._spare():
            turn = next(iter(self._patient))
            del self._patient[turn]
            if not turn.done():
                turn.set_result(None)
                self.in_use += 1
                self.background += 1

    def resize(self, slots: int, line: int | None = None) -> None:
        """Change the sizes while calls are inside; nobody inside or in line is turned out.

        Raises:
            ValueError: fewer than one slot, or a negative line.
        """
        self._set(slots, self.line if line is None else line)
        self._hand_over()

    def _set(self, slots: int, line: int) -> None:
        if slots < 1 or line < 0:
            raise ValueError(f"a gate needs at least one slot and a line of 0 or more, not {slots} and {line}")
        self.slots = slots
        self.line = line

    def retry_after_s(self) -> float:
        """Estimate, in seconds, when a call turned away now would get a slot: hold time x place in line / slots."""
        if self._hold_s is None:
            return _UNKNOWN_S
        return min(max(self._hold_s * (len(self._waiters) + 1) / self.slots, _LEAST_S), _MOST_S)
