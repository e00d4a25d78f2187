"""Run Sluice in front of a scripted backend: no key, no network, no weights. ``scripts/serve --demo`` calls this."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROLES = ("SMALL", "MEDIUM", "LARGE", "CODE", "POLISH", "ANALYSIS", "FAST", "ACCURATE")


def main() -> int:
    """Start the backend on a free port, then Sluice; end both together."""
    backend = subprocess.Popen(
        [sys.executable, "-m", "tests.upstream", "--port", "0", "--say-scripted"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for Sluice, which may still need the backend to finish
    )
    try:
        url = _url(backend)
        print(f"DEMO: the answers are scripted; no model is called. The scripted backend is {url}", file=sys.stderr)
        env = os.environ | {"BACKENDS__DEMO__BASE_URL": url, "MODEL_EMBEDDING": "demo/embedding"}
        env |= {f"MODEL_{role}": f"demo/{role.lower()}" for role in ROLES}
        sluice = subprocess.Popen([sys.executable, "-m", "app", "serve", *sys.argv[1:]], cwd=ROOT, env=env)
        return _wait(sluice)
    finally:
        backend.terminate()
        backend.wait()


def _url(backend: subprocess.Popen[str]) -> str:
    line = backend.stdout.readline() if backend.stdout else ""
    found = re.search(r"http://\S+", line)
    if found is None:
        raise SystemExit("the scripted backend did not start")
    return found[0]


def _wait(sluice: subprocess.Popen[bytes]) -> int:
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sluice.terminate())
    while True:
        try:
            return sluice.wait()
        except KeyboardInterrupt:
            continue  # the terminal has told Sluice as well; it finishes what is under way


if __name__ == "__main__":
    sys.exit(main())
