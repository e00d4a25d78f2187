"""A column type for money that both databases add up exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect

PICO = 10**12
"""A token of the cheapest models costs some nano-USD, a cached one less: pico-USD hold every price list exactly."""


class Usd(TypeDecorator[Decimal]):
    """US dollars as a Decimal, kept as whole pico-USD: SQLite has no exact decimals.

    SQLite's sums hold up to 9.2 million USD.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002 - the base's signature
        """Turn dollars into pico-USD."""
        return None if value is None else to_pico(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Turn pico-USD into dollars."""
        return None if value is None else Decimal(value) / PICO


def to_pico(usd: Decimal) -> int:
    """Return whole pico-USD, the nearest."""
    return int((usd * PICO).to_integral_value())
