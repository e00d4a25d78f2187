from __future__ import annotations

import logging

import orjson
import pytest

from app.telemetry.logs import json_formatter
from tests.conftest import Running


async def test_each_call_is_one_perf_line_without_its_content(
    sluice: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sluice"):
        answer = await sluice.chat("auto", "SAY very-private", headers={"authorization": "Bearer very-secret"})
    (line,) = [each for each in caplog.records if "[PERF]" in each.getMessage()]
    assert answer.headers["x-request-id"] in line.getMessage()
    assert "target=up/large" in line.getMessage()
    assert "parse=" in line.getMessage()
    written = json_formatter().format(line)
    fields = orjson.loads(written)
    assert (fields["outcome"], fields["target"], fields["level"]) == ("ok", "up/large", "info")
    assert fields["stages_ms"]["parse"] >= 0
    for text in (caplog.text, written):
        assert "very-private" not in text
        assert "very-secret" not in text


async def test_an_error_is_logged_by_its_type(sluice: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sluice"):
        await sluice.chat("up/m-400")
    (line,) = [each for each in caplog.records if "[PERF]" in each.getMessage()]
    assert orjson.loads(json_formatter().format(line))["error_type"] == "backend_invalid"


def test_an_exception_is_one_json_line() -> None:
    error = LookupError("gone")
    info = (type(error), error, None)
    record = logging.LogRecord("sluice", logging.ERROR, __file__, 1, "bad %s", ("thing\n",), info)
    line = json_formatter().format(record)
    assert "\n" not in line
    assert orjson.loads(line)["message"] == "bad thing\n"
    assert "LookupError: gone" in orjson.loads(line)["exception"]
