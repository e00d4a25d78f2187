"""Templates and the figures in them. Everything that a template shows is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent
NONE = "\N{EN DASH}"
_UNITS = ("", "k", "M", "G", "T")


def usd(value: Any, digits: int | None = None) -> str:
    """Return US dollars: cents from a dollar up, more digits below, as many as matter."""
    if value is None:
        return NONE
    amount = float(value)
    if digits is None:
        size = abs(amount)
        digits = 2 if size >= 1 or size == 0 else 4 if size >= 0.01 else 6  # noqa: PLR2004 - a dollar, a cent
    text = f"{abs(amount):,.{digits}f}"
    return f"-${text}" if amount < 0 else f"${text}"


def millis(value: Any) -> str:
    """Return a duration given in milliseconds."""
    if value is None:
        return NONE
    ms = float(value)
    if ms >= 10_000:  # noqa: PLR2004 - ten seconds
        return f"{ms / 1000:,.1f} s"
    if ms >= 1000:  # noqa: PLR2004 - a second
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"  # noqa: PLR2004 - three digits


def number(value: Any) -> str:
    """Return a whole number with its thousands apart."""
    return NONE if value is None else f"{round(value):,}"


def percent(part: Any, whole: Any) -> str:
    """Return a share in percent."""
    if not whole or part is None:
        return NONE
    share = 100 * float(part) / float(whole)
    return f"{share:.0f} %" if share in {0.0, 100.0} or share >= 10 else f"{share:.1f} %"  # noqa: PLR2004 - digits


def filled(part: float, whole: float | None) -> float:
    """Return how far a bar is filled, in percent, at most all of it."""
    return min(100.0, 100.0 * part / whole) if whole else 0.0


def size(value: Any) -> str:
    """Return bytes in decimal units, as disks and models are sold."""
    if value is None:
        return NONE
    amount, unit = float(value), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - decimal units
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}B" if unit else f"{amount:.0f} B"


def clock(at_ms: Any) -> str:
    """Return a moment, milliseconds since 1970, as a time of day in UTC."""
    return NONE if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S")


def day(at_ms: Any) -> str:
    """Return a moment, milliseconds since 1970, with its day, in UTC."""
    return NONE if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def moment(text: Any) -> str:
    """Return a moment in ISO 8601, as the gateway tells it, without seconds and zone: it is UTC."""
    return NONE if text is None else str(text)[:16].replace("T", " ")


def points(share: Any) -> str:
    """Return a difference, -1 to 1, in signed points of a hundred."""
    return NONE if share is None else f"{100 * float(share):+.2f}"


def ago(at_s: Any) -> str:
    """Return how long a moment, seconds since 1970, lies back or ahead."""
    if at_s is None:
        return NONE
    passed = time.time() - float(at_s)
    told = _span(abs(passed))
    return f"{told} ago" if passed >= 0 else f"in {told}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def words(text: Any) -> str:
    """Return a name of the machine's as words: ``no_content`` is ``no content``."""
    return NONE if text is None else str(text).replace("_", " ")


FILTERS = (usd, millis, number, size, clock, day, moment, points, ago, words)


@cache
def environment() -> Environment:
    """Return the templates' environment; what is missing in a template's values is an error."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {each.__name__: each for each in FILTERS}
    made.globals |= {"percent": percent, "none": NONE}
    return made


def render(template: str, **values: Any) -> str:
    """Return a template's HTML."""
    return environment().get_template(template).render(values)
