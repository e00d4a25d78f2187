from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backend.wire_errors import from_body, from_response, is_error, retry_after_s
from app.errors import Reason


def _read(status: int, body: Any, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return from_response("b", status, headers, raw)


@pytest.mark.parametrize(
    ("status", "body", "reason", "message", "code"),
    [
        (
            429,
            {"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
            "rate_limit",
            "slow down",
            "rate_limit_exceeded",
        ),
        (
            429,
            {"error": {"message": "no money", "code": "insufficient_quota"}},
            "dead_key",
            "no money",
            "insufficient_quota",
        ),
        (
            400,
            {"error": {"message": "too long", "code": "context_length_exceeded"}},
            "context_length",
            "too long",
            "context_length_exceeded",
        ),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens."}},
            "context_length",
            "This model's",
            None,
        ),
        (
            400,
            {"error": {"message": "prompt is too long: 200001 tokens > 200000 maximum"}},
            "context_length",
            "prompt is",
            None,
        ),
        (
            400,
            {"error": {"message": "flagged", "code": "content_filter"}},
            "content_filter",
            "flagged",
            "content_filter",
        ),
        (
            403,
            {"error": {"message": "input was flagged", "code": 403, "metadata": {"reasons": ["violence"]}}},
            "content_filter",
            "input",
            "403",
        ),
        (401, {"error": {"message": "bad key", "code": "invalid_api_key"}}, "dead_key", "bad key", "invalid_api_key"),
        (402, {"error": {"message": "no credits", "code": 402}}, "dead_key", "no credits", "402"),
        (404, {"error": {"message": "no model"}}, "model_missing", "no model", None),
        (400, {"error": {"message": "bad", "param": "messages[0]"}}, "invalid", "bad", None),
        (
            422,
            {"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]},
            "invalid",
            "Field required",
            None,
        ),
        (422, {"detail": "no"}, "invalid", "no", None),
        (
            429,
            [{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}],
            "rate_limit",
            "quota",
            "429",
        ),
        (
            429,
            {"success": False, "errors": [{"code": 3040, "message": "busy"}], "result": None},
            "rate_limit",
            "busy",
            "3040",
        ),
        (500, {"error": "runner died"}, "server_error", "runner died", None),
        (503, {"error": {"message": "busy"}}, "overloaded", "busy", None),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded",
            "Overloaded",
            None,
        ),
        (500, {"message": "oops", "code": "x"}, "server_error", "oops", "x"),
        (
            502,
            b"<html><body><h1>502 Bad Gateway</h1></body></html>",
            "server_error",
            "b answered 502: 502 Bad Gateway",
            None,
        ),
        (500, b"", "server_error", "without a message", None),
        (500, [], "server_error", "without a message", None),
        (418, {"error": None}, "invalid", "without a message", None),
    ],
)
def test_every_dialect_is_read(status: int, body: Any, reason: str, message: str, code: str | None) -> None:
    error = _read(status, body)
    assert (error.status, error.reason, error.code) == (status, Reason(reason), code)
    assert message in error.message
    assert isinstance(error.type, str)
    assert error.type


def test_an_error_in_a_200_names_its_own_status() -> None:
    assert from_body("b", {"error": {"code": 429, "message": "m"}}).status == 429
    assert from_body("b", {"error": {"code": "server_error", "message": "m"}}).status == 502
    assert from_body("b", {"error": {"code": 7, "message": "m"}}).status == 502


def test_param_and_type_are_kept() -> None:
    error = _read(400, {"error": {"message": "m", "type": "odd_error", "param": "n"}})
    assert error.body() == {"error": {"message": "m", "type": "odd_error", "param": "n", "code": None}}


@pytest.mark.parametrize(
    "body", [{"error": "x"}, [{"error": {}}, 1], {"success": False}, {"errors": [1]}, "x", None, 7, [], [{}]]
)
def test_what_is_no_answer_is_an_error(body: Any) -> None:
    assert is_error(body)


@pytest.mark.parametrize(
    "body", [{"choices": []}, {"choices": [], "errors": [1]}, {"data": []}, {"error": None, "choices": []}]
)
def test_an_answer_is_not_an_error(body: Any) -> None:
    assert not is_error(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "detail", "message", "code", "type", "param", "metadata"]), inner
        )
    ),
)


@given(st.integers(400, 599), _JSON)
def test_any_json_is_an_error_in_openais_shape(status: int, body: Any) -> None:
    told = from_body("b", body, status).body()["error"]
    assert isinstance(told["message"], str)
    assert told["message"]
    assert isinstance(told["type"], str)
    assert isinstance(told["code"], str | None)
    assert isinstance(told["param"], str | None)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_error(raw: bytes) -> None:
    assert _read(500, raw).message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_as_a_date() -> None:
    found = retry_after_s({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert found is not None
    assert 55 < found <= 60
