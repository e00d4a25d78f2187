"""A call's Record as rows of the database, and as the line of JSON that waits in the spill file."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from app.trace import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.trace import Attempt, Record

_PICO = Decimal(10**12)
_NONE = Usage()
_MOST_CHARS = 128
"""Of names that callers write: PostgreSQL refuses a text that is longer than its column."""

CALLS = (
    *("id", "request_id", "at_ms", "tenant", "endpoint", "stream", "task", "prompt_hash", "role", "kind"),
    *("complexity", "target", "arm", "outcome", "status", "error_type", "cache", "prompt_tokens", "cached_tokens"),
    *("cache_write_tokens", "completion_tokens", "reasoning_tokens", "estimated", "cost_usd", "baseline_target"),
    *("baseline_usd", "saved_usd", "total_ms", "backend_ms", "first_token_ms", "stages", "faults", "polished"),
    *("rescued", "chars", "code_block", "prompt", "answer", "why"),
)
ATTEMPTS = (
    *("call_id", "number", "target", "purpose", "result", "sent", "duration_ms", "prompt_tokens", "cached_tokens"),
    *("cache_write_tokens", "completion_tokens", "reasoning_tokens", "estimated", "cost_usd", "price"),
)
"""The columns, in the order of the rows' values."""


class Row(NamedTuple):
    """One call: its values, and those of each of its attempts."""

    call: tuple[Any, ...]
    attempts: list[tuple[Any, ...]]


def make_row(record: Record, call_id: str, at_ms: int) -> Row:
    """Return a call's values and its attempts'."""
    usage = record.usage or _NONE
    verdict = record.verdict
    call = (
        call_id,
        record.request_id,
        at_ms,
        _clean(record.tenant),
        record.endpoint,
        record.stream,
        _clean(record.task) if record.task else None,
        record.prompt_hash,
        record.role,
        verdict.kind if verdict is not None else None,
        verdict.complexity if verdict is not None else None,
        _named(record.target),
        _named(record.arm),
        record.outcome,
        record.status,
        record.error_type,
        record.cache,
        usage.prompt,
        usage.cached,
        usage.cache_write,
        usage.completion,
        usage.reasoning,
        usage.estimated,
        _pico(record.cost_usd),
        _named(record.baseline),
        _pico(record.baseline_usd),
        _pico(record.saved_usd),
        record.total_ms,
        record.backend_ms,
        record.first_token_ms,
        orjson.dumps(record.stages_ms).decode(),
        ",".join(record.faults),
        record.polished,
        ",".join(record.rescued),
        record.chars,
        record.code_block,
        record.prompt,
        record.answer.replace("\0", "") if record.answer is not None else None,
        "\n".join(record.why),
    )
    return Row(call, [_attempt(each, call_id, number) for number, each in enumerate(record.attempts)])


def _attempt(attempt: Attempt, call_id: str, number: int) -> tuple[Any, ...]:
    usage = attempt.usage
    told: tuple[Any, ...] = (None,) * 6
    if usage is not None:
        told = (usage.prompt, usage.cached, usage.cache_write, usage.completion, usage.reasoning, usage.estimated)
    return (
        call_id,
        number,
        _named(attempt.target),
        attempt.purpose,
        attempt.result,
        attempt.sent,
        attempt.duration_ms,
        *told,
        _pico(attempt.cost_usd),
        attempt.price,
    )


@lru_cache(maxsize=1024)
def _named(target: object) -> str | None:
    """Return a target's name."""
    return None if target is None else _clean(str(target))


def _clean(text: str) -> str:
    """Return a name that some caller may have written, as a database takes it."""
    if len(text) <= _MOST_CHARS and text.isprintable():
        return text
    return text[:_MOST_CHARS].replace("\0", "").encode("utf-8", "replace").decode()


def _pico(usd: Decimal | None) -> int | None:
    return None if usd is None else round(usd * _PICO)


def line_of(row: Row) -> bytes:
    """Return a row as a line of JSON, its values by name: another version of Sluice may read it."""
    told = {"call": dict(zip(CALLS, row.call, strict=True))}
    return orjson.dumps(told | {"attempts": [dict(zip(ATTEMPTS, each, strict=True)) for each in row.attempts]})


def row_of(line: bytes) -> Row | None:
    """Read a line; None where it is what a killed process or a full disk left of one."""
    try:
        told = orjson.loads(line)
        call = tuple(told["call"].get(name) for name in CALLS)
        return Row(call, [tuple(each.get(name) for name in ATTEMPTS) for each in told["attempts"]])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


_SIZES = (1, 4, 16, 64, 256)
"""Rows a statement on SQLite, so that few texts are to be compiled. Each statement is a way to another thread and back,
in which the calls under way lose a moment: a batch is one statement, filled up with its last row if need be.
"""


def statements(rows: Sequence[Row], *, sqlite: bool) -> Iterator[tuple[str, Any]]:
    """Yield statements, each with its parameters, that take rows in; each row is taken once however often it comes."""
    attempts = [each for row in rows for each in row.attempts]
    for table, columns, values in (("calls", CALLS, [row.call for row in rows]), ("attempts", ATTEMPTS, attempts)):
        if not sqlite:
            if values:
                yield _postgres(table, columns), values
            continue
        for size, group in _groups(values):
            yield _sqlite(table, columns, size), tuple([value for each in group for value in each])


def _groups(values: list[tuple[Any, ...]]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    for start in range(0, len(values), _SIZES[-1]):
        group = values[start : start + _SIZES[-1]]
        size = next(each for each in _SIZES if each >= len(group))
        yield size, group + group[-1:] * (size - len(group))


@lru_cache
def _sqlite(table: str, columns: tuple[str, ...], rows: int) -> str:
    each = f"({', '.join('?' * len(columns))})"
    names = ", ".join(columns)
    return f"INSERT OR IGNORE INTO {table} ({names}) VALUES {', '.join([each] * rows)}"  # noqa: S608 - ours


@lru_cache
def _postgres(table: str, columns: tuple[str, ...]) -> str:
    each = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) VALUES ({each}) ON CONFLICT DO NOTHING"  # noqa: S608 - ours
