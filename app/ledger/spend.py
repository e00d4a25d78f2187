"""What passes between a worker's purses and the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from decimal import Decimal


class Spend(NamedTuple):
    """What one call with a key cost; ``at`` is its end, in seconds since 1970."""

    key_id: str
    at: float
    usd: Decimal


class Grant(NamedTuple):
    """What a worker may spend: nothing where a budget is used up.

    Attributes:
        left_usd: what there was before.
        of_month: whether that is of the month's budget, and not of the day's.
    """

    usd: Decimal
    left_usd: Decimal
    of_month: bool
