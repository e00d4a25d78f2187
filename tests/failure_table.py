"""Every way in which a backend misbehaves, and what a caller is to get: the rows that tests and scripts/failures play.

Outcomes: ``whole`` (the whole answer), a status such as ``503`` (an error in OpenAI's shape), ``event`` (a stream that
had begun ends with an error event and no ``[DONE]``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

SETTINGS = """
BACKENDS__PRE__BASE_URL={url}
BACKENDS__PRE__PREFILL=true
BACKENDS__BIG__BASE_URL={url}
BACKENDS__BIG__CONTEXT_WINDOW=1000000
BACKENDS__UP__CONTEXT_WINDOW=8000
MAX_ANSWER_MB=1
LOG_LEVEL=error
"""
SHORT = """
CONNECT_TIMEOUT_S=1
FIRST_CONTENT_TIMEOUT_S={limit_s}
ANSWER_TIMEOUT_S={limit_s}
IDLE_TIMEOUT_S={limit_s}
DEADLINE_S=30
"""


class Expected(NamedTuple):
    """What is to come of a call.

    Attributes:
        outcome: see above.
        tries: attempts that the misbehaving target sees.
        spares: attempts that the fallback sees.
        within_s: generous bound of the wall time under the short limits.
    """

    outcome: str
    tries: int = 1
    spares: int = 0
    within_s: float = 12.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        name: the row of the specification, with a letter where it has several.
        does: what the backend does.
        fault: the faults in the model's name, see tests.upstream.faults.
        plain, stream: what is expected (without a fallback, with one).
        backend, spare_backend, spare: where the model and its fallback are, and the fallback's faults.
        gap_s: least time between the first two attempts.
        deadline_s: the caller's own read timeout.
        told: a part of the error message that the caller is to read.
    """

    name: str
    does: str
    fault: str
    plain: tuple[Expected, Expected]
    stream: tuple[Expected, Expected]
    backend: str = "up"
    spare_backend: str = "up"
    spare: str = "ok"
    gap_s: float = 0.0
    deadline_s: float | None = None
    told: str = ""


class _Both(TypedDict):
    plain: tuple[Expected, Expected]
    stream: tuple[Expected, Expected]


def _both(alone: Expected, spared: Expected) -> _Both:
    return {"plain": (alone, spared), "stream": (alone, spared)}


WHOLE = Expected("whole")
SPARED = Expected("whole", 1, 1)
RETRIED = Expected("whole", 2)
EVENT = Expected("event")
_OVERLOADED = "currently overloaded"

ROWS = (
    Row("F1", "429 with `Retry-After: 1`, then well", "429ra1", **_both(RETRIED, RETRIED), gap_s=1.0),
    Row("F1b", "429 with `Retry-After: 60`", "429:ra60", **_both(Expected("429"), SPARED)),
    Row("F2", "429 on and on", "429", **_both(Expected("429", 3), Expected("whole", 3, 1))),
    Row("F3", "500 once", "500once", **_both(RETRIED, RETRIED)),
    Row("F4", "503 on and on", "503", **_both(Expected("503", 3), Expected("whole", 2, 1)), told=_OVERLOADED),
    Row("F5", "resets before headers", "rst", **_both(Expected("502", 3), Expected("whole", 2, 1))),
    Row("F5b", "closes before headers", "close", **_both(Expected("502", 3), Expected("whole", 2, 1))),
    Row("F6", "accepts and says nothing", "hang", **_both(Expected("504"), SPARED)),
    Row("F7", "headers and role, first content after 20 s", "slow:20", **_both(Expected("504"), SPARED)),
    Row(
        "F8a",
        "cuts after 3 chunks, takes a prefill",
        "prefill-cut:3:x1",
        plain=(RETRIED, SPARED),
        stream=(RETRIED, RETRIED),
        backend="pre",
        spare_backend="pre",
    ),
    Row(
        "F8b",
        "cuts after 3 chunks, again and again",
        "cut:3",
        plain=(Expected("502", 2), SPARED),
        stream=(Expected("event", 2), SPARED),
    ),
    Row(
        "F8c",
        "cuts after 3 chunks; the fallback says something else",
        "cut:3",
        plain=(Expected("502", 2), SPARED),
        stream=(Expected("event", 2), Expected("event", 1, 1)),
        spare="other",
    ),
    Row(
        "F8d",
        "ends after 3 chunks with no finish_reason",
        "cuteof:3-conclose",
        plain=(Expected("502", 2), SPARED),
        stream=(Expected("event", 2), SPARED),
    ),
    Row(
        "F8e",
        "resets after 3 chunks",
        "cutrst:3",
        plain=(Expected("502", 2), SPARED),
        stream=(Expected("event", 2), SPARED),
    ),
    Row(
        "F9",
        "goes silent after 3 chunks",
        "stall:3",
        plain=(Expected("504"), SPARED),
        stream=(EVENT, SPARED),
    ),
    Row(
        "F9b",
        "goes silent after 3 chunks; the fallback takes a prefill",
        "stall:3",
        plain=(Expected("504"), SPARED),
        stream=(EVENT, SPARED),
        backend="pre",
        spare_backend="pre",
        spare="prefill",
    ),
    Row(
        "F10",
        "one malformed event, then well",
        "bad:2",
        plain=(Expected("502", 2), SPARED),
        stream=(WHOLE, WHOLE),
    ),
    Row(
        "F10b",
        "one malformed event, then a cut",
        "bad:2-cut:4",
        plain=(Expected("502", 2), SPARED),
        stream=(Expected("event", 2), SPARED),
    ),
    Row("F11", "finish_reason, no [DONE], closes", "nodone-conclose", **_both(WHOLE, WHOLE)),
    Row("F11b", "finish_reason, no [DONE], stays open", "nodoneopen", **_both(WHOLE, WHOLE)),
    Row(
        "F12",
        "400 context_length_exceeded; the fallback has a larger window",
        "400ctx",
        **_both(Expected("400"), SPARED),
        spare_backend="big",
    ),
    Row(
        "F12b",
        "400 context_length_exceeded; the fallback's window is no larger",
        "400ctx",
        **_both(Expected("400"), Expected("400")),
    ),
    Row("F13", "400 content filter", "400filter", **_both(Expected("400"), Expected("400"))),
    Row("F13b", "403 moderation", "403mod", **_both(Expected("403"), Expected("403"))),
    Row(
        "F14",
        "cuts, and both targets refuse a prefill",
        "noprefill-cut:3:x1",
        plain=(RETRIED, SPARED),
        stream=(Expected("whole", 3), Expected("whole", 2, 2)),
        backend="pre",
        spare_backend="pre",
        spare="noprefill",
    ),
    Row("F17a", "OpenRouter: an error inside a 200", "orerr:502", **_both(Expected("502", 3), Expected("whole", 2, 1))),
    Row("F17b", "Gemini: a list with an error", "gemerr:429", **_both(Expected("429", 3), Expected("whole", 3, 1))),
    Row("F17c", "Cloudflare: its envelope", "cferr:500", **_both(Expected("500", 3), Expected("whole", 2, 1))),
    Row("F17d", "Ollama: a bare string", "ollerr:500", **_both(Expected("500", 3), Expected("whole", 2, 1))),
    Row("F17e", "FastAPI: 422 with detail", "dtlerr:422", **_both(Expected("422"), Expected("422"))),
    Row("F17f", "a proxy's HTML page", "htmlerr:502", **_both(Expected("502", 3), Expected("whole", 2, 1))),
    Row("F17g", "200 with half a JSON document", "badjson", **_both(Expected("502", 2), SPARED)),
    Row("F17h", "200 with nothing", "empty", **_both(Expected("502", 2), SPARED)),
    Row(
        "F17i",
        "OpenRouter: an error after 3 chunks",
        "ormid:3-conclose",
        plain=(Expected("502", 3), Expected("whole", 2, 1)),
        stream=(Expected("event", 2), SPARED),
    ),
    Row(
        "F17j",
        "Ollama: an empty chunk and the end after 3 chunks",
        "ollsilent:3-conclose",
        plain=(WHOLE, WHOLE),
        stream=(Expected("event", 2), SPARED),
    ),
    Row("F18", "401, a dead key", "401", **_both(Expected("401"), SPARED)),
    Row("F18b", "402, out of money", "402", **_both(Expected("402"), SPARED)),
    Row("F18c", "429 insufficient_quota", "429quota", **_both(Expected("429"), SPARED)),
    Row(
        "F19",
        "trickles comments for ever",
        "drip",
        **_both(Expected("504"), SPARED),
    ),
    Row(
        "F19b",
        "trickles words for ever",
        "dripword:100",
        plain=(Expected("504"), SPARED),
        stream=(EVENT, EVENT),
        deadline_s=2.5,
    ),
    Row(
        "F20",
        "a body without end",
        "endless",
        plain=(Expected("502"), SPARED),
        stream=(EVENT, EVENT),
    ),
    Row("F20b", "a line without end", "longline", **_both(Expected("502"), SPARED)),
    Row("F20c", "a header of 1 MB", "bighead:1024", **_both(Expected("502", 2), SPARED)),
    Row("F20d", "headers without end", "endlesshead", **_both(Expected("502", 2), SPARED)),
)
