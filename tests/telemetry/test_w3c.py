from __future__ import annotations

import pytest

from app.telemetry.w3c import begin
from app.trace import TraceContext

_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_trace_goes_on_under_a_span_of_our_own() -> None:
    context = begin({b"traceparent": f"00-{_TRACE}-{_SPAN}-01".encode(), b"tracestate": b"vendor=1"}, None)
    assert context is not None
    assert (context.trace_id, context.parent_id, context.sampled, context.state) == (_TRACE, _SPAN, True, "vendor=1")
    assert context.span_id != _SPAN
    assert context.traceparent == f"00-{_TRACE}-{context.span_id}-01"


def test_a_trace_that_the_caller_does_not_record_is_not_recorded() -> None:
    context = begin({b"traceparent": f"00-{_TRACE}-{_SPAN}-00".encode()}, lambda _: True)
    assert context is not None
    assert not context.sampled
    assert context.traceparent.endswith("-00")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{_TRACE}-{_SPAN}-01",
        f"00-{'0' * 32}-{_SPAN}-01",
        f"00-{_TRACE}-{'0' * 16}-01",
        f"00-{_TRACE.upper()}-{_SPAN}-01",
        f"00-{_TRACE}-{_SPAN}",
    ],
)
def test_a_broken_header_counts_as_none(header: str) -> None:
    assert begin({b"traceparent": header.encode()}, None) is None
    context = begin({b"traceparent": header.encode()}, lambda _: False)
    assert context is not None
    assert (context.parent_id, context.sampled) == ("", False)


def test_new_traces_have_ids_of_their_own() -> None:
    seen: list[str] = []

    def samples(trace_id: str) -> bool:
        seen.append(trace_id)
        return True

    contexts = [begin({}, samples) for _ in range(2)]
    assert [each.trace_id for each in contexts if isinstance(each, TraceContext)] == seen
    assert len(set(seen)) == 2
