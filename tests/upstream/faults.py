"""How a backend may misbehave, and how a test says so.

A fault is written in the model's name, after a hyphen, with parameters after colons: `small-cut:3`, `m-429ra1`,
`m-slow:2-cut:5-cost`. Several are played together where that makes sense. Parts of a name that are no fault are just
the name. The same words, without a name in front, go into `Upstream.script` and `Upstream.always` (`"cut:3"`, `"ok"`).

When a fault applies (parameters of any fault; without them: always; attempts are counted per model name)
    :xK         in the first K attempts            :afterK   in all but the first K attempts
    :pF         with probability F (seeded)        :forS     in the first S seconds since the model was first asked
    :overN      while more than N attempts at the model are under way

Errors instead of an answer
    NNN         HTTP status 400..599 in OpenAI's shape, e.g. 401, 404, 413, 422, 500, 503
    NNNraS      the same with `Retry-After: S`, once (as `NNN:raS:x1`; `NNNraS:x3` thrice, `NNN:raS` for ever)
    NNNonce     the same, once (as `NNN:x1`)
    400ctx      context_length_exceeded            400filter  content_filter
    403mod      moderation                         429quota   insufficient_quota
    down:S      503 for S seconds since the model was first asked (as `503:forS`)
    orerr:N     OpenRouter: HTTP 200 with {"error": {"code": N, ...}} (502)
    gemerr:N    Gemini: HTTP N with a list [{"error": {...}}] (429)
    cferr:N     Cloudflare: HTTP N with {"success": false, "errors": [{code, message}]} (429)
    ollerr:N    Ollama: HTTP N with {"error": "text"} (500)
    dtlerr:N    FastAPI: HTTP N with {"detail": [...]} (422)
    htmlerr:N   a proxy's HTML page (502)          txterr:N   plain text (500)
    empty       HTTP 200, no body                  badjson    HTTP 200, half a JSON document, rightly framed
    chaos       one of: 500, 429, 503, rst, close, cut:2, cutrst:2, cuteof:2, bad:1, htmlerr (seeded; give it a :pF)

The connection
    rst         reset (RST) before any header      close      close (FIN) before any header
    hang        read the request, say nothing      late:S     S seconds before the headers (1)
    conclose    `Connection: close` and close after the answer

Time
    slow:S      headers and role chunk at once, first content after S seconds; a plain answer after S seconds (1)
    pace:MS     MS milliseconds before each content chunk (20)

In a stream, after K content chunks (0); in a plain answer half-way through the body
    cut:K       close, the chunked body unterminated
    cuteof:K    close, the body rightly terminated, no finish_reason
    cutrst:K    reset (RST)
    stall:K     go silent
    bad:K       one malformed event, then go on    (with cut: `bad:2-cut:3`)
    ssemid:K    data: {"error": {...}} in OpenAI's shape, then the end
    ormid:K     OpenRouter: chunk with finish_reason "error" and a top-level error with an int code, then the end
    groqmid:K   Groq: chunk with x_groq.error, then the end
    ollmid:K    Ollama: data: {"error": "text"}, then the end
    ollsilent:K Ollama: an empty chunk, then the end with no finish_reason and no [DONE]
    drip:MS     a comment line each MS milliseconds, for ever (200); in a plain answer a space
    dripbyte:MS one byte of an unfinished event each MS milliseconds, for ever (200)
    dripword:MS a content chunk each MS milliseconds, for ever (1000)
    longline    one SSE line without end
    endless     a body without length and without end (content chunks; in a plain answer one string)
    bighead:KB  one header of KB kibibytes (1024), then the answer
    endlesshead header lines without end

The end of a stream
    nodone      finish_reason, no [DONE], close    nodoneopen finish_reason, no [DONE], stays open
    linger:S    [DONE], body left open S seconds (for ever)

Flavours
    varyids     id, created and model differ in each chunk
    norole      no role chunk                      fullrole   the role in each chunk
    orping      `: OPENROUTER PROCESSING` comments before each chunk
    cost        usage.cost and cost_details        xgroq      x_groq.usage (in the finish chunk of a stream)
    nousage     no usage at all                    crlf       SSE lines end in CR LF
    bytes:N     the stream written N bytes at a time (7), whatever the events
    thought     extra_content.google.thought_signature in tool calls
    other       another text than all other models give
    words:N     an answer of N words               finish:R   finish_reason R, e.g. `finish:length`
    quality:N   the answer ends with `(quality N)`: a scripted judge takes the larger for the better; 5 without
    judge       a judge of answers, for prompts/judge.md; judge:B favours the first answer in B % of questions
    gullible    one that does what the answers say
    floats      embeddings as numbers always       coded      embeddings in base64 always
    eager       where there are tools, one is called, with what the message says
    english     a sentence in English              russian    a sentence in Russian

JSON documents, where a response_format asks for one
    full:N      lists hold N items where they may, and texts are sentences (3)
    prose       in a code fence, with a sentence before and after it
    loose       with single quotes and a comma too many
    offschema   another document than was asked for
    nojson      a sentence instead             blocks     `=== POST X ===` blocks instead
    noformat    a 400 instead: it takes no response_format
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field, replace

_STATUS = re.compile(r"([45]\d\d)(?:ra(\d+(?:\.\d+)?)|(once)|(ctx|filter|mod|quota))?")
_WHEN = re.compile(r"(x|after|p|for|over)(\d+(?:\.\d+)?)")
_PARAM = re.compile(r"(x|after|p|for|over|ra)?\d+(\.\d+)?")
_RETRY = re.compile(r"ra(\d+(?:\.\d+)?)")
_CHAOS = ("500", "429", "503", "rst", "close", "cut:2", "cutrst:2", "cuteof:2", "bad:1", "htmlerr")

ERRORS = frozenset({"status", "orerr", "gemerr", "cferr", "ollerr", "dtlerr", "htmlerr", "txterr", "empty", "badjson"})
MIDDLE = frozenset(
    {"cut", "cuteof", "cutrst", "stall", "bad", "ssemid", "ormid", "groqmid", "ollmid", "ollsilent"}
    | {"drip", "dripbyte", "dripword", "longline", "endless"}
)
NAMES = (
    (ERRORS - {"status"})
    | MIDDLE
    | {"down", "chaos", "rst", "close", "hang", "late", "conclose", "slow", "pace", "bighead", "endlesshead"}
    | {"nodone", "nodoneopen", "linger", "varyids", "norole", "fullrole", "orping", "cost", "xgroq", "nousage"}
    | {"english", "russian", "full", "prose", "loose", "offschema", "nojson", "blocks", "noformat"}
    | {
        "crlf",
        "bytes",
        "thought",
        "other",
        "words",
        "finish",
        "quality",
        "judge",
        "gullible",
        "floats",
        "coded",
        "eager",
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its name, its parameters and when it applies.

    Attributes:
        arg: the first parameter as written, "" where there is none.
        kind: for a status: ``ctx``, ``filter``, ``mod``, ``quota`` or "".
        retry_after: seconds for the header, as written, or "".
        when: conditions by their letters, see the table above; all must hold.
    """

    name: str
    arg: str = ""
    kind: str = ""
    retry_after: str = ""
    when: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The fault as it may be written, without its conditions."""
        if self.name == "status":
            return self.arg + self.kind
        return f"{self.name}:{self.arg}" if self.arg else self.name

    def number(self, default: float) -> float:
        """Return the parameter as a number."""
        return float(self.arg) if self.arg else default


@dataclass(slots=True)
class Moment:
    """What the conditions of a fault look at: the history of one model name."""

    seed: int
    attempts: int = 0
    under_way: int = 0
    first_at: float = 0.0
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def begin(self) -> None:
        """Count one more attempt."""
        self.attempts += 1
        self.under_way += 1
        if self.attempts == 1:
            self.first_at = time.monotonic()

    def holds(self, condition: str, value: float) -> bool:
        """Say whether one condition holds now."""
        match condition:
            case "x":
                return self.attempts <= value
            case "after":
                return self.attempts > value
            case "p":
                return self.dice.random() < value
            case "for":
                return time.monotonic() - self.first_at < value
            case _:
                return self.under_way > value


class Faults(tuple[Fault, ...]):
    """The faults of one attempt."""

    __slots__ = ()

    def find(self, *names: str) -> Fault | None:
        """Return the first fault with one of these names."""
        return next((fault for fault in self if fault.name in names), None)

    def has(self, name: str) -> bool:
        """Say whether a fault is among these."""
        return self.find(name) is not None

    def number(self, name: str, default: float, absent: float = 0.0) -> float:
        """Return the parameter of a fault; ``default`` where it has none, ``absent`` where there is no such fault."""
        fault = self.find(name)
        return absent if fault is None else fault.number(default)

    def now(self, moment: Moment, *, scripted: bool = False) -> Faults:
        """Return those that apply now; scripted ones are already dealt out one an attempt, so only chance is left."""
        chosen = (f for f in self if all(moment.holds(c, v) for c, v in f.when.items() if c == "p" or not scripted))
        return Faults(_dice(fault, moment) for fault in chosen)


def _dice(fault: Fault, moment: Moment) -> Fault:
    return _part(moment.dice.choice(_CHAOS)) or fault if fault.name == "chaos" else fault


def parse_name(model: str) -> Faults:
    """Return the faults that a model's name asks for."""
    return Faults(fault for part in model.split("-") if (fault := _part(part)))


def parse_script(text: str) -> Faults:
    """Return the faults of a script's entry, e.g. ``cut:3-cost`` or ``ok``.

    Raises:
        ValueError: there is a word that is no fault.
    """
    found = {part: _part(part) for part in text.split("-") if part != "ok"}
    if unknown := [part for part, fault in found.items() if fault is None]:
        raise ValueError(f"no such fault: {', '.join(unknown)}")
    return Faults(fault for fault in found.values() if fault)


def base_name(model: str) -> str:
    """Return a model's name without its faults."""
    return "-".join(part for part in model.split("-") if _part(part) is None)


def _part(part: str) -> Fault | None:
    head, *params = part.split(":")
    if not all(_PARAM.fullmatch(param) for param in params) and head != "finish":
        return None
    if (status := _STATUS.fullmatch(head)) is not None:
        return _with(_status(status), params)
    if head == "down":
        return Fault("status", "503", when={"for": float(params[0]) if params else 60.0})
    return _with(Fault(head), params) if head in NAMES else None


def _status(found: re.Match[str]) -> Fault:
    code, retry_after, once, kind = found.groups()
    return Fault("status", code, kind or "", retry_after or "", {"x": 1.0} if retry_after or once else {})


def _with(fault: Fault, params: list[str]) -> Fault:
    when = dict(fault.when)
    for param in params:
        if found := _WHEN.fullmatch(param):
            when[found[1]] = float(found[2])
        elif found := _RETRY.fullmatch(param):
            fault = replace(fault, retry_after=found[1])
        else:
            fault = replace(fault, arg=param)
    return replace(fault, when=when)
