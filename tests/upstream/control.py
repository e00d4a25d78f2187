"""The upstream's control over HTTP, for tests in another process.

POST /_script  {"model": M, "faults": ["500", "cut:2", "ok"]}   one fault an attempt, then as the name says
               {"model": M, "always": "503" | null}             whatever the name, until null
GET  /_log     ?model=M ?since=N    {"log": [...], "open", "max_open", "active", "max_active", "now"}
               ?ended=N             answers once N attempts (at M) have ended; ?begun=N once N have begun
               ?timeout=S           ... or 408 after S seconds (10)
POST /_reset   forget log, scripts and counts
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import http, shapes

if TYPE_CHECKING:
    from tests.upstream.http import Request
    from tests.upstream.log import Attempt
    from tests.upstream.server import Upstream


async def answer(up: Upstream, request: Request) -> bytes:
    """Do what a control request asks and return the response."""
    match request.method, request.path.rpartition("/")[2]:
        case "POST", "_script":
            status, value = _script(up, request.json())
        case "GET", "_log":
            status, value = await _log(up, request.query)
        case "POST", "_reset":
            up.reset()
            status, value = 200, {"ok": True}
        case _:
            status, value = 404, shapes.error("no such control")
    return http.whole(status, orjson.dumps(value, default=str))


def _script(up: Upstream, asked: Any) -> tuple[int, dict[str, Any]]:
    try:
        up.script(asked["model"], asked.get("faults", []))
        if "always" in asked:
            up.always(asked["model"], asked["always"])
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        return 400, shapes.error(f"{type(problem).__name__}: {problem}")
    return 200, {"ok": True}


async def _log(up: Upstream, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
    def chosen() -> list[Attempt]:
        since = up.log[int(query.get("since", 0)) :]
        return [a for a in since if "model" not in query or a.model == query["model"]]

    def wished(_: list[Attempt]) -> bool:
        begun = chosen()
        ended = [a for a in begun if a.ended != "open"]
        return len(begun) >= int(query.get("begun", 0)) and len(ended) >= int(query.get("ended", 0))

    try:
        await up.wait_for(wished, float(query.get("timeout", 10)))
    except TimeoutError:
        return 408, shapes.error("the log is not yet so")
    counts = {"open": up.open, "max_open": up.max_open, "active": up.active, "max_active": up.max_active}
    return 200, {"log": [a.as_json() for a in chosen()], "now": time.monotonic()} | counts
