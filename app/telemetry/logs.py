"""Logging: one line an event, as text or JSON. No secret, prompt or answer gets into it."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from app.call import Record

log = logging.getLogger("sluice")
_FIELDS = "sluice_fields"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def setup(level: str, form: str) -> None:
    """Log to standard error at a level (``debug`` … ``error``) as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
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
