"""The days and months that budgets count in, UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def periods(at: float) -> tuple[str, str]:
    """Return the day and the month of a moment, in seconds since 1970: ``2026-11-26`` and ``2026-11``."""
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    return day, day[:7]


def next_day(at: float) -> datetime:
    """Return when the day of a moment ends."""
    midnight = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)


def next_month(at: float) -> datetime:
    """Return when the month of a moment ends."""
    first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
