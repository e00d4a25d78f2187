"""Run Sluice in front of a scripted backend: no key, no network, no weights. ``scripts/serve --demo`` calls this."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRICES = """# made up, USD per million tokens
demo/large: {input: 1.25, output: 10}
demo/medium: {input: 0.6, output: 0.8}
demo/*: {input: 0.05, output: 0.08}
"""
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
        print(
            f"DEMO: the answers are scripted, and so are the prices; no model is called. The scripted backend is {url}",
            file=sys.stderr,
        )
        with tempfile.TemporaryDirectory(prefix="sluice-demo-") as folder:
            prices = Path(folder) / "prices.yml"
            prices.write_text(PRICES)
            env = {"BACKENDS__DEMO__BASE_URL": url, "MODEL_EMBEDDING": "demo/embedding", "PRICES_FILE": str(prices)}
            env |= {f"MODEL_{role}": f"demo/{role.lower()}" for role in ROLES}
            command = [sys.executable, "-m", "app", "serve", *sys.argv[1:]]
            return _wait(subprocess.Popen(command, cwd=ROOT, env=os.environ | env))
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
