from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import Start
from tests.upstream import Upstream

_TRACE, _PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass
class Collector:
    """An OTLP/HTTP collector that keeps what it gets."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)

    async def traces_in(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for each in told.resource_spans:
            self.services |= {
                pair.value.string_value for pair in each.resource.attributes if pair.key == "service.name"
            }
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def metrics_in(self, request: web.Request) -> web.Response:
        told = ExportMetricsServiceRequest.FromString(await request.read())
        for each in told.resource_metrics:
            self.metrics |= {metric.name: metric for scope in each.scope_metrics for metric in scope.metrics}
        return web.Response(body=b"", content_type="application/x-protobuf")

    def call(self) -> Span:
        (found,) = [span for span in self.spans if not span.name.startswith("stage ")]
        return found


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.traces_in)
    app.router.add_post("/v1/metrics", collector.metrics_in)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def _about(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


async def test_a_call_and_its_stages_are_spans_of_the_callers_trace(up: Upstream, start: Start) -> None:
    async with collecting() as collector:
        text = f"MODEL_LARGE=up/large\nOTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        async with start(text, up=up) as sluice:
            headers = {"traceparent": f"00-{_TRACE}-{_PARENT}-01", "tracestate": "vendor=1"}
            answer = await sluice.chat("auto", "SAY very-private", headers=headers)
        call = collector.call()
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (_TRACE, _PARENT)
    assert (call.name, call.kind, call.trace_state) == ("chat large", Span.SPAN_KIND_SERVER, "vendor=1")
    about = _about(call)
    assert about["gen_ai.provider.name"] == "up"
    assert about["gen_ai.usage.input_tokens"] > 0
    assert about["sluice.request_id"] == answer.headers["x-request-id"]
    assert [_about_event(event)["sluice.result"] for event in call.events] == ["ok"]
    stages = [span for span in collector.spans if span is not call]
    assert {span.name for span in stages} >= {"stage classify", "stage plan", "stage connect"}
    assert all(span.parent_span_id == call.span_id and span.trace_id == call.trace_id for span in stages)
    assert all(call.start_time_unix_nano <= span.start_time_unix_nano for span in stages)
    assert max(span.end_time_unix_nano for span in stages) <= call.end_time_unix_nano + 1_000_000
    (attempt,) = up.of("large")
    assert attempt.headers["traceparent"] == f"00-{_TRACE}-{call.span_id.hex()}-01"
    assert attempt.headers["tracestate"] == "vendor=1"
    assert "very-private" not in str(collector.spans)
    assert collector.services == {"sluice"}


def _about_event(event: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in event.attributes}


async def test_metrics_bear_the_names_of_the_conventions(up: Upstream, start: Start) -> None:
    async with collecting() as collector:
        text = f"MODEL_LARGE=up/large\nOTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        async with start(text, up=up) as sluice:
            answer = await sluice.chat("auto", "count to five", stream=True, stream_options={"include_usage": True})
            assert "[DONE]" in answer.text
    assert set(collector.metrics) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.server.time_per_output_token",
        "gen_ai.server.time_to_first_token",
    }
    usage = collector.metrics["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    kinds = {_about_event(point)["gen_ai.token.type"] for point in usage.histogram.data_points}
    assert kinds == {"input", "output"}


async def test_an_error_is_an_error_span_and_a_call_without_a_parent_begins_a_trace(up: Upstream, start: Start) -> None:
    async with collecting() as collector:
        text = f"RETRIES=0\nOTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        async with start(text, up=up) as sluice:
            assert (await sluice.chat("up/m-400")).status_code == 400
        call = collector.call()
    assert not call.parent_span_id
    assert call.status.code == call.status.STATUS_CODE_ERROR
    assert _about(call)["error.type"] == "backend_invalid"


async def test_what_the_caller_does_not_record_is_not_sent(up: Upstream, start: Start) -> None:
    async with collecting() as collector:
        text = f"MODEL_LARGE=up/large\nOTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        async with start(text, up=up) as sluice:
            await sluice.chat("auto", headers={"traceparent": f"00-{_TRACE}-{_PARENT}-00"})
    assert collector.spans == []
    assert "gen_ai.client.token.usage" in collector.metrics


@pytest.mark.parametrize("more", ["", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9\nOTEL_SDK_DISABLED=true\n"])
async def test_a_trace_is_passed_on_where_nothing_is_recorded_here(up: Upstream, start: Start, more: str) -> None:
    async with start(f"MODEL_LARGE=up/large\n{more}", up=up) as sluice:
        await sluice.chat("auto", headers={"traceparent": f"00-{_TRACE}-{_PARENT}-01"})
        await sluice.chat("auto")
    first, second = up.of("large")
    assert first.headers["traceparent"].startswith(f"00-{_TRACE}-")
    assert _PARENT not in first.headers["traceparent"]
    assert "traceparent" not in second.headers
