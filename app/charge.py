"""The money of a call whose key has a budget: set aside before the upstream call, settled after it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, TypeVar

from app.dispatch import Answer
from app.errors import PolicyError
from app.route.resolve import chain_of_role
from app.route.spend import answer_tokens, prompt_tokens
from app.route.tiers import tiers_above

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.backend.base import Take
    from app.call import Ask, Plan, Target
    from app.gateway import Gateway
    from app.ledger.budgets import Reservation
    from app.settings import Settings
    from app.trace import Trace, Usage
    from app.transcript import Transcript

T = TypeVar("T")
_COUNTED = {"chat", "embeddings"}
"""Endpoints whose calls are billed by tokens."""
_PRICES_S = 5.0
"""How long a call waits for the price list in a gateway's first seconds."""


class Charge:
    """The money of one upstream call: set aside before it, settled once it is over.

    ``async with`` it; a streamed answer is over when it is closed, for which ``until_over`` sees to it.
    """

    def __init__(self, gateway: Gateway, trace: Trace, reservation: Reservation | None = None) -> None:
        self._gateway = gateway
        self._trace = trace
        self._before = len(trace.attempts)
        self._reservation = reservation
        self._goes_on = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._goes_on:
            self._settle()

    def until_over(self, answer: T) -> T | Tended:
        """Return the answer, so that a streamed one is settled when it is closed."""
        if self._reservation is None or isinstance(answer, Answer):
            return answer
        self._goes_on = True
        return Tended(answer, self._settle)

    def _settle(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            attempts = self._trace.attempts[self._before :]
            costs = [
                self._cost(each.target, each.usage, each.duration_ms) for each in attempts if each.usage is not None
            ]
            reservation.settle(sum(costs, Decimal(0)))

    def _cost(self, target: Target, usage: Usage, duration_ms: float) -> Decimal:
        return self._gateway.prices.cost_usd(target, usage, duration_ms / 1000) or Decimal(0)


async def charged(ask: Ask, plan: Plan, gateway: Gateway, settings: Settings, trace: Trace) -> tuple[Plan, Charge]:
    """Set the money for a call aside where its key has a budget; return the plan with what has a price.

    Raises:
        BudgetSpentError: 429, nothing is left.
        PolicyError: 403, no candidate has a price.
    """
    key = ask.key
    if key is None or not key.budgeted or gateway.budgets is None:
        return plan, Charge(gateway, trace)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(gateway.prices.loaded.wait(), _PRICES_S)
    prompt, answer = prompt_tokens(ask, trace.prompt_estimate()), answer_tokens(ask)
    costs = {target: _estimate(ask, target, gateway, prompt, answer) for target in plan.candidates}
    priced = {target: usd for target, usd in costs.items() if usd is not None}
    if not priced:
        raise PolicyError(
            f"The key {key.name!r} has a budget, and no price is known of {', '.join(map(str, costs))}: "
            "name it in PRICES_FILE.",
            code="unpriced_model",
            param="model",
            fault="policy_unpriced",
        )
    usd = max(priced.values())
    if plan.check and plan.on_weak != "serve" and not ask.stream:
        usd += _mending_usd(plan, settings, gateway, prompt + answer, answer)
    reservation = await gateway.budgets.reserve(key, usd) if usd else None
    return replace(plan, candidates=tuple(priced)), Charge(gateway, trace, reservation)


def _estimate(ask: Ask, target: Target, gateway: Gateway, prompt: int, answer: int) -> Decimal | None:
    """Return about what a call will cost; None where nobody can say."""
    if ask.endpoint in _COUNTED:
        return gateway.prices.estimate_usd(target, prompt, answer)
    usd = gateway.prices.estimate_usd(target, 1_000_000, 1_000_000)
    return None if usd else usd  # what is passed on is not understood: only what is free can be held to a budget


def _mending_usd(plan: Plan, settings: Settings, gateway: Gateway, prompt: int, answer: int) -> Decimal:
    """Return what it may cost to polish or escalate a weak answer."""
    roles = ("polish",) if plan.on_weak == "polish" else tiers_above(plan.role)
    targets = [choice.target for role in roles for choice in chain_of_role(role, settings)]
    return max(
        (gateway.prices.estimate_usd(each, prompt, answer) or Decimal(0) for each in targets), default=Decimal(0)
    )


class Tended:
    """A streamed answer with something to do once it is over; the same face as the answer itself."""

    def __init__(self, answer: Any, over: Callable[[], None]) -> None:
        self._answer = answer
        self._over: Callable[[], None] | None = over

    @property
    def target(self) -> Target:
        """Who answers."""
        target: Target = self._answer.target
        return target

    @property
    def said(self) -> Transcript:
        """What the caller has been given so far."""
        said: Transcript = self._answer.said
        return said

    @property
    def replayed(self) -> bool:
        """Whether it costs nothing."""
        return bool(self._answer.replayed)

    async def batch(self) -> list[Any]:
        """Return the next events, at least one; none once the answer is whole.

        Raises:
            SluiceError: the answer broke and could not be saved.
        """
        events: list[Any] = await self._answer.batch()
        return events

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive while :meth:`batch` waits to ``take``; it waits on if they are taken."""
        self._answer.pass_on(take)

    def close(self) -> None:
        """Close everything at once; harmless when repeated."""
        self._answer.close()
        over, self._over = self._over, None
        if over is not None:
            over()
