from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batch import lines
from tests.batch.client import CHAT, jsonl, line


def _scan(data: bytes) -> lines.Scan:
    return lines.scan(data.splitlines(keepends=True), CHAT)


@given(names=st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1, max_size=30), blank=st.booleans())
def test_every_line_is_found_where_it_is(names: list[str], blank: bool) -> None:
    between = b"\n" if blank else b""
    data = between.join(jsonl([line(name, name)]) for name in names)
    found = lines.scan(data.splitlines(keepends=True), CHAT)
    assert found.problems == []
    again = [lines.read(data[begin:end], number, CHAT) for number, begin, end in found.spans]
    assert [each.custom_id for each in again] == names
    assert [json.loads(each.body)["messages"][0]["content"] for each in again] == names


def test_the_last_line_needs_no_end() -> None:
    assert len(_scan(jsonl([line("a"), line("b")])[:-1]).spans) == 2


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (line("a") | {"custom_id": 3}, "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line("x" * 513), "invalid_custom_id", "custom_id"),
        (line("a") | {"method": "GET"}, "invalid_method", "method"),
        (line("a", url="/v1/embeddings"), "mismatched_url", "url"),
        (line("a") | {"body": "x"}, "invalid_body", "body"),
        (line("a", stream=True), "invalid_body", "body.stream"),
        (line("first"), "duplicate_custom_id", "custom_id"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(bad: Any, code: str, param: str | None) -> None:
    raw = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    problems = _scan(jsonl([line("first")]) + b"\n" + raw + b"\n" + jsonl([line("last")])).problems
    assert [(each["code"], each["param"], each["line"]) for each in problems] == [(code, param, 3)]


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n"])
def test_nothing_is_no_batch(data: bytes) -> None:
    assert [each["code"] for each in _scan(data).problems] == ["empty_file"]


def test_too_many_lines_and_too_many_problems_end_the_search() -> None:
    raw = (json.dumps(line(f"n{number}")).encode() for number in range(50_002))
    assert [each["code"] for each in lines.scan(raw, CHAT).problems] == ["too_many_tasks"]
    assert len(_scan(b"{\n" * 1000).problems) == 100


@pytest.mark.parametrize(
    ("status", "code", "retry_after_s", "tried", "waits_s"),
    [
        (200, None, None, 1, None),
        (400, None, None, 1, None),
        (401, "invalid_api_key", None, 1, None),
        (429, None, 7.0, 1, 7.0),
        (429, None, 700.0, 1, 60.0),
        (429, None, None, 50, 60.0),
        (429, "insufficient_quota", None, 1, None),
        (429, "budget_exceeded", None, 1, None),
        (500, None, None, 1, 0.5),
        (502, None, None, 4, 4.0),
        (502, None, None, 5, None),
        (503, "overloaded", 1.0, 9, 60.0),
        (503, "no_usable_backend", None, 1, None),
    ],
)
def test_when_a_line_is_tried_again(
    status: int, code: str | None, retry_after_s: float | None, tried: int, waits_s: float | None
) -> None:
    assert lines.again_in_s(status, code, retry_after_s, tried) == waits_s
