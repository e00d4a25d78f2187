"""Which of two answers to one call is better, as far as no judge is needed to tell. Pure.

By the contract of the task where there is one: an answer that breaks it loses to one that keeps it; of two that keep
it, what can be compared is compared, field by field. By the quality check otherwise. What is left is for the judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.route.quality import SEVERITY, inspect
from app.route.quality_schema import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.route.parity import Method

NEAR: Final = 0.1
"""Scores from 0 to 1 that differ by no more are the same score; of larger numbers, so much of the larger one."""
_BAD: Final = 2
"""Faults of this severity make an answer lose to one without: it is of no use, or only a part of it is."""
_ROUNDING: Final = 1e-9
_MOST_LEAVES: Final = 20_000
_MISSING: Final = object()

Read = Callable[[str, str | None], Any]
"""From an answer's text and finish_reason to its value under the contract; raises ValueError where it breaks it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: its text, and why it ended."""

    text: str
    finish: str | None


@dataclass(frozen=True, slots=True)
class Contract:
    """What an answer must be.

    Attributes:
        schema: JSON schema of the value.
        read: judges an answer.
    """

    schema: dict[str, Any]
    read: Read


@dataclass(frozen=True, slots=True)
class Scored:
    """What was found without a judge.

    Attributes:
        method: how.
        difference: -1 the target lost to 1 it won; None: the judge is to say who is right.
        weight: how much the judge's verdict counts: the share of the answer in which the two differ.
        by_contract: whether it is labels and numbers that the judge is asked about, so that the reference counts as
            right where there is no judge.
    """

    method: Method
    difference: float | None
    weight: float = 1.0
    by_contract: bool = False


def score(body: dict[str, Any], kind: str | None, target: Said, reference: Said, contract: Contract | None) -> Scored:
    """Compare an answer with the reference's.

    Args:
        body: the chat body that both answer.
        kind: of the verdict.
        target: what the caller got.
        reference: what the reference says.
        contract: of the task, or of the response format.
    """
    if target.text.strip() == reference.text.strip():
        return Scored("equal", 0.0)
    if contract is not None:
        return _by_contract(contract, target, reference)
    bad = [_is_bad(body, kind, each) for each in (target, reference)]
    if any(bad):
        return Scored("faults", float(bad[1]) - float(bad[0]))
    return Scored("judge", None)


def contract_of(body: dict[str, Any]) -> Contract | None:
    """Return the contract of a call that asks for JSON by a schema of its own."""
    wanted = body.get("response_format")
    inner = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        return None

    def read(text: str, finish: str | None) -> Any:
        faults = inspect(body, text, kind=None, finish_reason=finish)
        if faults:
            raise ValueError(", ".join(faults))
        return parse_json(text)

    return Contract(schema, read)


def _is_bad(body: dict[str, Any], kind: str | None, said: Said) -> bool:
    faults = inspect(body, said.text, kind=kind, finish_reason=said.finish)
    return any(SEVERITY[fault] >= _BAD for fault in faults)


def _by_contract(contract: Contract, target: Said, reference: Said) -> Scored:
    values = [_value(contract, each) for each in (target, reference)]
    kept = [each is not _MISSING for each in values]
    if not all(kept):
        return Scored("contract", float(kept[0]) - float(kept[1]))
    same = agreement(contract.schema, values[0], values[1])
    if same is None:
        return Scored("judge", None)
    return Scored("contract", 0.0) if same >= 1 - _ROUNDING else Scored("judge", None, 1 - same, by_contract=True)


def _value(contract: Contract, said: Said) -> Any:
    try:
        return contract.read(said.text, said.finish)
    except ValueError:
        return _MISSING


def agreement(schema: Any, one: Any, other: Any) -> float | None:
    """Return the share of what can be compared that is the same in two values; None where nothing can be.

    Labels (strings of a closed set), truth values and whole numbers are the same where they are equal, other numbers
    where they are near. Free text is not compared. Entries of a list are matched by their id, else by their place.
    """
    seen = equal = 0
    for same in _leaves(schema, one, other):
        seen += 1
        equal += same
        if seen == _MOST_LEAVES:
            break
    return equal / seen if seen else None


def _leaves(schema: Any, one: Any, other: Any) -> Iterator[bool]:
    if not isinstance(schema, dict):
        return
    if "enum" in schema or "const" in schema:
        yield one == other
    elif isinstance(one, dict) or isinstance(other, dict):
        yield from _objects(schema, one, other)
    elif isinstance(one, list) or isinstance(other, list):
        yield from _lists(schema.get("items"), one, other)
    elif _compared(one, other):
        yield _same(one, other)


def _compared(one: Any, other: Any) -> bool:
    """Whether two values are labels or numbers; text is not compared, and what one lacks is what the other has."""
    there = [each for each in (one, other) if each is not _MISSING]
    return any(not isinstance(each, str) for each in there)


def _same(one: Any, other: Any) -> bool:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    if not numbers:
        return bool(one == other)
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR + _ROUNDING)


def _objects(schema: dict[str, Any], one: Any, other: Any) -> Iterator[bool]:
    parts, rest = schema.get("properties"), schema.get("additionalProperties")
    parts = parts if isinstance(parts, dict) else {}
    one, other = (each if isinstance(each, dict) else {} for each in (one, other))
    for name in dict.fromkeys((*one, *other)):
        yield from _leaves(parts.get(name, rest), one.get(name, _MISSING), other.get(name, _MISSING))


def _lists(schema: Any, one: Any, other: Any) -> Iterator[bool]:
    one, other = (each if isinstance(each, list) else [] for each in (one, other))
    name = _id_of(schema)
    if name is not None:
        by_id = [{_key(item.get(name)): item for item in each if isinstance(item, dict)} for each in (one, other)]
        pairs = [
            (by_id[0].get(key, _MISSING), by_id[1].get(key, _MISSING)) for key in dict.fromkeys((*by_id[0], *by_id[1]))
        ]
        schema = {**schema, "properties": {key: part for key, part in schema["properties"].items() if key != name}}
    else:
        length = max(len(one), len(other))
        pairs = list(zip(_filled(one, length), _filled(other, length), strict=True))
    for left, right in pairs:
        if left is _MISSING or right is _MISSING:
            yield False
        else:
            yield from _leaves(schema, left, right)


def _filled(items: list[Any], length: int) -> list[Any]:
    return items + [_MISSING] * (length - len(items))


def _key(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else repr(value)


def _id_of(schema: Any) -> str | None:
    """Return the property that names the entries of a list."""
    parts = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(parts, dict):
        return None
    return next((name for name in parts if name == "id" or name.endswith("_id")), None)
