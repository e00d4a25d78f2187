"""The error family. Every error that can reach a caller is a SluiceError and knows its OpenAI shape."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class SluiceError(Exception):
    """An error with everything OpenAI's error body and headers need.

    Attributes:
        status: HTTP status.
        type: OpenAI's error type, e.g. ``invalid_request_error``.
        code: a short machine-readable string or None.
        param: the path of the offending field, e.g. ``messages[0].content``, or None.
        fault: label for ``sluice_errors_total``, from a closed set with the prefix of its fault domain
            (``caller_``, ``policy_``, ``backend_``, ``sluice_``).
        retry_after_s: seconds after which another try makes sense, or None.
        final: whether Sluice has spent its own retries, so that the caller's client should not add its own.
    """

    status = 500
    type = "server_error"
    code: str | None = None
    fault = "sluice_internal"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - OpenAI's own name
        code: str | None = None,
        param: str | None = None,
        fault: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or self.status
        self.type = type or self.type
        self.code = code or self.code
        self.param = param
        self.fault = fault or self.fault
        self.retry_after_s = retry_after_s
        self.final = False

    def body(self) -> dict[str, Any]:
        """Return the body in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class CallerError(SluiceError):
    """The caller's own mistake: it never counts against a backend and is never retried."""

    status = 400
    type = "invalid_request_error"
    fault = "caller_invalid_request"


class PolicyError(SluiceError):
    """Sluice's own rules forbid the call: a key, a limit, a budget, LOCAL_ONLY."""

    status = 403
    type = "permission_error"
    fault = "policy_denied"


class Reason(StrEnum):
    """Why a backend's attempt lost: the closed set that retries, breaker and metrics go by."""

    CONNECT = "connect"  # no connection within the limit, or refused
    RESET = "reset"  # the connection ended before the response's headers
    NO_CONTENT = "no_content"  # no first content within the limit
    SLOW_ANSWER = "slow_answer"  # a plain answer took longer than its limit
    STALLED = "stalled"  # silence between two events of a stream
    CUT = "cut"  # the answer ended in the middle
    MALFORMED = "malformed"  # not the JSON or the events that were asked for
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    DEAD_KEY = "dead_key"  # the backend refuses Sluice's key, or its account is out of money
    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"
    MODEL_MISSING = "model_missing"
    COLD = "cold"  # it is being woken or loaded, and nobody waits for that
    NOT_READY = "not_ready"  # it could not be woken or loaded
    INVALID = "invalid"  # the backend calls the request wrong
    TOO_LARGE = "too_large"  # an answer beyond every bound
    DEADLINE = "deadline"  # the whole call's time is up


class BackendError(SluiceError):
    """A backend failed. Status, message, type, code and param are its own where it gave any."""

    status = 502
    type = "server_error"

    def __init__(self, reason: Reason, message: str, **told: Any) -> None:
        super().__init__(message, fault=f"backend_{reason}", **told)
        self.reason = reason
