"""OpenTelemetry: of every Record a span for the call, one for each stage, and GenAI metrics; sent by OTLP.

The spans are built when the call is over, from what its Record says: while it runs, tracing costs two ids.
Names follow https://opentelemetry.io/docs/specs/semconv/gen-ai/. Other OTEL_ variables are read by the SDK itself.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from app import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.call import Target
    from app.trace import Record, TraceContext

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SCOPE = InstrumentationScope("sluice", __version__)
_PROVIDERS = {"gemini": "gcp.gemini", "workers-ai": "cloudflare.workers_ai"}
"""Backends whose provider the conventions, or their way of naming, call otherwise."""
_OPERATIONS = {"embeddings": "embeddings", "completions": "text_completion"}
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Buckets that the conventions recommend for durations."""
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Buckets that the conventions recommend for token usage."""


class Otel:
    """Exports Records. Importing this module takes a third of a second: do it off the event loop."""

    def __init__(self, endpoint: str, label: Callable[[Target], str] = str) -> None:
        """Begin to export to an OTLP/HTTP collector; ``label`` names targets from a closed set."""
        self._label = label
        self._resource = _resource()
        provider = TracerProvider(resource=self._resource)
        self._sampler = provider.sampler
        self._spans = BatchSpanProcessor(OTLPSpanExporter(endpoint=_url(endpoint, "traces")))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=_url(endpoint, "metrics")))
        self._metrics = MeterProvider([reader], resource=self._resource)
        meter = self._metrics.get_meter(_SCOPE.name, _SCOPE.version)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._first = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._token = meter.create_histogram(
            "gen_ai.server.time_per_output_token", "s", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=_TOKENS
        )

    def samples(self, trace_id: str) -> bool:
        """Whether a trace that begins here is recorded (``OTEL_TRACES_SAMPLER``)."""
        result = self._sampler.should_sample(None, int(trace_id, 16), "sluice", SpanKind.SERVER)
        return result.decision is Decision.RECORD_AND_SAMPLE

    def observe(self, record: Record) -> None:
        """Take one call: a hook of the gateway. Nothing is sent here."""
        self._measure(record)
        if record.context is not None and record.context.sampled:
            for span in self._spans_of(record, record.context, time.time_ns()):
                self._spans.on_end(span)

    def close(self) -> None:
        """Send what is left; takes as long as the collector does."""
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()

    # -- spans ---------------------------------------------------------------------------------------------------------

    def _spans_of(self, record: Record, context: TraceContext, end_ns: int) -> Iterator[ReadableSpan]:
        """Yield the spans of a call that ended at ``end_ns``: the stages, one after the other, then the call."""
        start_ns = end_ns - int(record.total_ms * 1e6)
        mine = _context(context, context.span_id)
        at_ns = start_ns
        for stage, ms in record.stages_ms.items():
            before_ns, at_ns = at_ns, at_ns + int(ms * 1e6)
            own = _context(context, os.urandom(8).hex())
            yield self._span(f"stage {stage}", own, mine, before_ns, at_ns, attributes={"sluice.stage": stage})
        failed = record.outcome in {"error", "cut"}
        yield self._span(
            _name(record),
            mine,
            _context(context, context.parent_id, remote=True) if context.parent_id else None,
            start_ns,
            end_ns,
            kind=SpanKind.SERVER,
            attributes=_attributes(record),
            events=tuple(_attempts(record, start_ns)),
            status=Status(StatusCode.ERROR, record.error_type) if failed else Status(StatusCode.UNSET),
        )

    def _span(
        self, name: str, own: SpanContext, parent: SpanContext | None, start_ns: int, end_ns: int, **more: Any
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            own,
            parent,
            self._resource,
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=_SCOPE,
            **more,
        )

    # -- metrics -------------------------------------------------------------------------------------------------------

    def _measure(self, record: Record) -> None:
        about = {"gen_ai.operation.name": _operation(record), "sluice.outcome": record.outcome}
        if record.target is not None:
            about["gen_ai.provider.name"] = _provider(record.target)
            about["gen_ai.request.model"] = self._label(record.target).partition("/")[2]
        if record.error_type is not None:
            about["error.type"] = record.error_type
        self._duration.record(record.total_ms / 1000, about)
        if record.first_token_ms is not None:
            self._first.record(record.first_token_ms / 1000, about)
        if record.per_token_ms is not None:
            self._token.record(record.per_token_ms / 1000, about)
        if record.usage is not None:
            self._usage.record(record.usage.prompt, about | {"gen_ai.token.type": "input"})
            self._usage.record(record.usage.completion, about | {"gen_ai.token.type": "output"})


def _resource() -> Resource:
    found = Resource.create({SERVICE_VERSION: __version__})
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found.merge(Resource({SERVICE_NAME: "sluice"})) if unnamed else found


def _url(endpoint: str, signal: str) -> str | None:
    """Return where a signal goes; None where the exporter finds it in the environment by its own, finer rules."""
    return None if os.environ.get(_ENDPOINT) == endpoint else f"{endpoint.rstrip('/')}/v1/{signal}"


def _context(context: TraceContext, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(span_id, 16),
        remote,
        TraceFlags(TraceFlags.SAMPLED),
        TraceState.from_header([context.state] if context.state else []),
    )


def _operation(record: Record) -> str:
    return _OPERATIONS.get(record.endpoint, "chat")


def _provider(target: Target) -> str:
    return _PROVIDERS.get(target.backend, target.backend)


def _name(record: Record) -> str:
    return f"{_operation(record)} {record.target.model}" if record.target is not None else _operation(record)


def _attributes(record: Record) -> dict[str, str | int | float | bool]:
    """Return what the conventions name, and what only a gateway knows; what is not known is left out."""
    usage, verdict, target = record.usage, record.verdict, record.target
    told: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": _provider(target) if target is not None else None,
        "gen_ai.request.model": target.model if target is not None else None,
        "gen_ai.response.model": target.model if target is not None else None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.usage.input_tokens": usage.prompt if usage is not None else None,
        "gen_ai.usage.output_tokens": usage.completion if usage is not None else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached if usage is not None else None,
        "http.response.status_code": record.status,
        "error.type": record.error_type,
        "sluice.request_id": record.request_id,
        "sluice.endpoint": record.endpoint,
        "sluice.tenant": record.tenant,
        "sluice.outcome": record.outcome,
        "sluice.role": record.role,
        "sluice.kind": verdict.kind if verdict is not None else None,
        "sluice.complexity": verdict.complexity if verdict is not None else None,
        "sluice.faults": ",".join(record.faults) or None,
        "sluice.polished": record.polished,
    }
    return {name: value for name, value in told.items() if value is not None}


def _attempts(record: Record, at_ns: int) -> Iterator[Event]:
    for attempt in record.attempts:
        about: dict[str, str | float | bool] = {
            "sluice.target": str(attempt.target),
            "sluice.result": attempt.result,
            "sluice.sent": attempt.sent,
            "sluice.duration_ms": attempt.duration_ms,
        }
        yield Event("attempt", about, timestamp=at_ns)
        at_ns += int(attempt.duration_ms * 1e6)
