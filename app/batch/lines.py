"""The lines of a batch's input and of its output. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations")
MOST_LINES = 50_000  # OpenAI's own bound
_MOST_PROBLEMS = 100
"""A file that is all wrong is not told line by line."""
_LONGEST_ID = 512
_OK = 300
_LATER = {408, 425, 429, 500, 502, 503, 504}
_BUSY = {429, 503}
_NEVER = {"insufficient_quota", "budget_exceeded", "invalid_api_key", "no_usable_backend"}
_TRIES = 5
"""A line that a backend cannot answer gets so many calls, each with Sluice's own retries and candidates."""
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """One call of a batch: its number in the file, counted from 1, and what the caller calls it."""

    number: int
    custom_id: str
    body: bytes


@dataclass(slots=True)
class Scan:
    """Where the lines of an input are, and what is wrong with them.

    Attributes:
        spans: of each line its number, and where it begins and ends in the file.
        problems: as the batch's ``errors`` has them.
    """

    spans: list[tuple[int, int, int]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)


class ProblemError(Exception):
    """Something is wrong with a line."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def scan(lines: Iterable[bytes], endpoint: str) -> Scan:
    """Check an input, line by line; blank lines mean nothing."""
    found = Scan()
    seen: set[str] = set()
    at = 0
    for number, raw in enumerate(lines, 1):
        begin, at = at, at + len(raw)
        if not raw.strip():
            continue
        found.spans.append((number, begin, at))
        try:
            _see(seen, read(raw, number, endpoint).custom_id)
        except ProblemError as problem:
            found.problems.append(_told(problem, number))
        if len(found.problems) >= _MOST_PROBLEMS or len(found.spans) > MOST_LINES:
            break
    if len(found.spans) > MOST_LINES:
        found.problems.append(_told(ProblemError("too_many_tasks", f"A batch has at most {MOST_LINES} lines."), None))
    if not found.spans:
        found.problems.append(_told(ProblemError("empty_file", "The input file is empty."), None))
    return found


def _see(seen: set[str], custom_id: str) -> None:
    if custom_id in seen:
        raise ProblemError("duplicate_custom_id", "The custom_id of this line was used before.", "custom_id")
    seen.add(custom_id)


def _told(problem: ProblemError, number: int | None) -> dict[str, Any]:
    return {"code": problem.code, "message": str(problem), "param": problem.param, "line": number}


def read(raw: bytes, number: int, endpoint: str) -> Line:
    """Read one line.

    Raises:
        ProblemError: it is no call to this endpoint.
    """
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProblemError("invalid_json_line", f"This line is not JSON: {error}.") from error
    if not isinstance(line, dict):
        raise ProblemError("invalid_json_line", "This line is not a JSON object.")
    name = line.get("custom_id")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_ID:
        message = f"This line needs a custom_id of 1 to {_LONGEST_ID} characters."
        raise ProblemError("invalid_custom_id", message, "custom_id")
    if line.get("method") != "POST":
        raise ProblemError("invalid_method", "The method of a line is POST.", "method")
    if line.get("url") != endpoint:
        raise ProblemError("mismatched_url", f"The url of every line must be the batch's endpoint, {endpoint}.", "url")
    body = line.get("body")
    if not isinstance(body, dict):
        raise ProblemError("invalid_body", "The body of a line is a JSON object.", "body")
    if body.get("stream"):
        raise ProblemError("invalid_body", "Lines of a batch do not stream.", "body.stream")
    return Line(number, name, orjson.dumps(body))


def answered(batch_id: str, line: Line, status: int, request_id: str, body: Any) -> bytes:
    """Return the line of the output for a call that was answered, well or not."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _row(batch_id, line, response, None)


def unanswered(batch_id: str, line: Line, code: str, message: str) -> bytes:
    """Return the line of the error file for a call that was never made."""
    return _row(batch_id, line, None, {"code": code, "message": message})


def _row(batch_id: str, line: Line, response: Any, error: Any) -> bytes:
    made = f"batch_req_{batch_id.removeprefix('batch_')}_{line.number}"
    return orjson.dumps({"id": made, "custom_id": line.custom_id, "response": response, "error": error})


def good(status: int) -> bool:
    """Whether a status is that of an answer."""
    return status < _OK


def again_in_s(status: int, code: str | None, retry_after_s: float | None, tried: int) -> float | None:
    """Return the seconds after which a line is tried again, or None where its answer stands.

    Who is told to slow down slows down, for as long as the batch has time; who fails is tried a few times.
    """
    if status not in _LATER or code in _NEVER:
        return None
    if status not in _BUSY and tried >= _TRIES:
        return None
    return min(max(retry_after_s or 0.0, 0.5 * math.pow(2, min(tried, 10) - 1)), _LONGEST_WAIT_S)
