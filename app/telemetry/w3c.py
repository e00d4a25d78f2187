"""W3C trace context: the ids by which a call is found in the traces of its caller and of those whom it asks.

Source of the format: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from app.trace import TraceContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_STATE = 512
"""Characters of ``tracestate`` that the standard asks to be passed on at least."""


def begin(headers: Mapping[bytes, bytes], samples: Callable[[str], bool] | None) -> TraceContext | None:
    """Return the context of a call that begins.

    Args:
        headers: of the request; a ``traceparent`` that is not valid counts as none.
        samples: says of a new trace's id whether it is recorded; None where nothing is traced here: the caller's
            context is then only passed on.
    """
    raw = headers.get(b"traceparent")
    found = _PARENT.fullmatch(raw) if raw is not None else None
    if found is not None:
        trace_id, parent_id, flags = (found.group(place).decode() for place in (1, 2, 3))
        state = headers.get(b"tracestate", b"").decode("latin-1")[:_LONGEST_STATE]
        return TraceContext(trace_id, _span_id(), parent_id, bool(int(flags, 16) & 1), state)
    if samples is None:
        return None
    trace_id = os.urandom(16).hex()
    return TraceContext(trace_id, _span_id(), "", samples(trace_id))


def _span_id() -> str:
    return os.urandom(8).hex()
