"""``python -m tests.backend.paced PORT MODEL``: one plain call after the other, a few milliseconds apart.

A process of its own, so that what it measures is the server and not the other clients. Once its standard input closes
it prints a list of [when each call began on the monotonic clock, the seconds it took].
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

_PAUSE_S = 0.005


def main() -> None:
    """Call until standard input closes, then tell."""
    port, model = int(sys.argv[1]), sys.argv[2]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "SAY x"}]})
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found = []
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        began = time.monotonic()
        link.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        with link.getresponse() as response:
            response.read()
            assert response.status == 200
        found.append((began, time.monotonic() - began))
    print(json.dumps(found))  # noqa: T201 - who started it reads it


if __name__ == "__main__":
    main()
