"""What shadow calls may cost a day, over all workers and hosts. Money is held back before it is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.call import Target
    from app.ledger.db import Database
    from app.trace import Attempt, Usage

_NOTHING = Decimal(0)
_MAYBE_BILLED = frozenset({"timeout", "stalled", "cut", "malformed", "too_large", "deadline"})
"""Results of attempts whose answer may have been made, and billed, though it did not come whole."""


class Prices(Protocol):
    """What targets cost."""

    def cost_usd(self, target: Target, usage: Usage) -> Decimal | None:
        """Return what an answer cost; None where the target has no price."""

    def estimate_usd(self, target: Target, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """Return what a call with so many tokens would cost."""


@dataclass(frozen=True, slots=True)
class Need:
    """A call that is to be made: of one of these targets, with at most so many tokens."""

    targets: tuple[Target, ...]
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Purse:
    """Money held back for one sample, on the day (UTC) on which it began.

    Attributes:
        limit_usd: of the day.
        reserved: what is held back now.
    """

    database: Database
    limit_usd: Decimal
    day: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    reserved: Decimal = _NOTHING

    async def hold_back(self, usd: Decimal) -> bool:
        """Hold more back; False where the day's limit does not allow it.

        Raises:
            DatabaseUnavailableError: nobody can tell what the day has cost.
        """
        from app.ledger import parity

        if usd and not await parity.reserve(self.database, self.day, usd, self.limit_usd):
            return False
        self.reserved += usd
        return True

    async def settle(self, spent: Decimal) -> None:
        """Put what was spent in the place of what was held back.

        Raises:
            DatabaseUnavailableError: what was held back stays so: the day costs less than the ledger of it says.
        """
        from app.ledger import parity

        if self.reserved or spent:
            await parity.settle(self.database, self.day, self.reserved, spent)


def most_usd(needs: Iterable[Need], prices: Prices) -> Decimal | None:
    """Return what calls can cost at most; None where a target has no price, so that nobody knows."""
    total = _NOTHING
    for need in needs:
        each = [prices.estimate_usd(target, need.prompt_tokens, need.completion_tokens) for target in need.targets]
        known = [usd for usd in each if usd is not None]
        if not known or len(known) < len(each):
            return None
        total += max(known)
    return total


def spent_usd(attempts: Iterable[Attempt], prices: Prices) -> Decimal | None:
    """Return what calls cost, failed attempts too; None where nobody can know it."""
    total = _NOTHING
    for attempt in attempts:
        if attempt.usage is None and attempt.result in _MAYBE_BILLED:
            return None
        usd = prices.cost_usd(attempt.target, attempt.usage) if attempt.usage is not None else _NOTHING
        if usd is None:
            return None
        total += usd
    return total
