"""Logging: one line an event, as text or JSON. No secret, prompt or answer gets into it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from app.trace import Record

log = logging.getLogger("sluice")
_FIELDS = "sluice_fields"


def json_formatter() -> logging.Formatter:
    """Return what writes one JSON object a line, with structlog's processors."""
    import structlog

    processors = structlog.processors
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _take_fields,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            processors.format_exc_info,
            processors.EventRenamer("message"),
            processors.JSONRenderer(serializer=_dumps),
        ],
    )


def _take_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add what a line knows beside its message."""
    event.update(getattr(event["_record"], _FIELDS, {}))
    return event


def _dumps(line: Any, **_more: Any) -> str:
    return orjson.dumps(line, default=str).decode()


def setup(level: str, form: str) -> None:
    """Log to standard error at a level (``debug`` … ``error``) as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(json_formatter() if form == "json" else logging.Formatter(text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def perf(record: Record) -> None:
    """Log one call's ``[PERF]`` line."""
    if not log.isEnabledFor(logging.INFO):
        return
    stages = " ".join(f"{name}={ms:.2f}" for name, ms in record.stages_ms.items())
    log.info(
        "[PERF] %s %s %s %d target=%s total=%.2f ms %s",
        record.request_id,
        record.endpoint,
        record.outcome,
        record.status,
        record.target,
        record.total_ms,
        stages,
        extra={_FIELDS: _fields(record)},
    )


def _fields(record: Record) -> dict[str, object]:
    usage = record.usage
    return {
        "request_id": record.request_id,
        "trace_id": record.context.trace_id if record.context is not None else None,
        "endpoint": record.endpoint,
        "tenant": record.tenant,
        "outcome": record.outcome,
        "status": record.status,
        "target": str(record.target) if record.target else None,
        "role": record.role,
        "error_type": record.error_type,
        "total_ms": record.total_ms,
        "stages_ms": record.stages_ms,
        "attempts": [f"{each.target}={each.result}" for each in record.attempts],
        "prompt_tokens": usage.prompt if usage else None,
        "completion_tokens": usage.completion if usage else None,
    }
