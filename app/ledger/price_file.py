"""PRICES_FILE: what the operator says that targets cost."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from app.route.price import Rates, Step

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {
    "input": "input",
    "output": "output",
    "cached": "cached",
    "cache_write": "cache_write",
    "reasoning": "reasoning",
    "request": "request_usd",
    "hour": "hour_usd",
}


def read_price_file(path: Path) -> dict[str, Rates]:
    """Read a YAML file of rates by ``backend/model-id`` or ``backend/*``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what it should be; the message says where.
    """
    import yaml

    try:
        told = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):  # a mistake of the file's writer, not of a caller here
        raise ValueError(f"{path} must be a map from backend/model-id to its rates")  # noqa: TRY004
    return {_target(name): _rates(str(name), rates, f"{path.name}") for name, rates in told.items()}


def _target(name: object) -> str:
    backend, slash, model = str(name).partition("/")
    if not slash or not backend or not model:
        raise ValueError(f"{name!r} is not a target: write backend/model-id, or backend/* for all of a backend")
    return f"{backend.lower()}/{model}"


def _rates(name: str, told: Any, source: str) -> Rates:
    base = _amounts(name, told)
    steps = told.get("above") or {}
    if not isinstance(steps, dict):
        raise ValueError(f"{name}: above must be a map from a number of prompt tokens to rates")  # noqa: TRY004
    found = [
        Step(_tokens(name, above), Rates(**(base | _amounts(name, each)), source=source))
        for above, each in steps.items()
    ]
    return Rates(**base, steps=tuple(sorted(found, key=lambda step: -step.above)), source=source)


def _amounts(name: str, told: Any) -> dict[str, Any]:
    if not isinstance(told, dict) or not told:
        raise ValueError(f"{name}: must be a map such as {{input: 0.15, output: 0.6}}, in USD per million tokens")
    unknown = [str(each) for each in told if each not in _NAMES and each != "above"]
    if unknown:
        raise ValueError(f"{name}: {', '.join(unknown)} is not one of {', '.join(_NAMES)}, above")
    return {_NAMES[each]: _amount(f"{name}: {each}", value) for each, value in told.items() if each != "above"}


def _amount(name: str, value: object) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal(-1)
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}: {value!r} is not an amount in USD, 0 or more")
    return amount


def _tokens(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}: above: {value!r} is not a number of prompt tokens")
    return value
