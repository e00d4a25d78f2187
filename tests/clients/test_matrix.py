"""The client matrix as a test: opt in, since it installs every client from its registry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients import matrix


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_client_gets_what_it_asks_for(tmp_path: Path) -> None:
    cache = Path(os.environ.get("SLUICE_CLIENTS_CACHE") or tmp_path / "clients")
    results = await matrix.play(matrix.CLIENTS, cache, tmp_path, print)
    print(f"\n{matrix.table(results)}\n{[each.suites for each in results if each.suites]}")  # noqa: T201
    assert [line for result in results for line in result.failed] == []


def test_a_table_tells_what_works_what_does_not_and_what_there_is_not() -> None:
    result = matrix.Result(matrix.CLIENTS[0])
    for feature, ok in (("chat", True), ("stream", False), ("tools", None)):
        matrix._take(result, {"row": "a", "feature": feature, "ok": ok, "note": "why"})
    matrix._take(result, {"versions": {"x": "1"}})
    assert matrix.table([result]).splitlines()[2].startswith("| a | yes | **no** | – | – |")
    assert result.failed == ["  a, stream: why"]
    assert matrix.versions([result]) == "- x 1"
