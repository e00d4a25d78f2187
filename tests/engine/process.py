"""A real engine in a process of its own, and a client for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx

from tests import forks

if TYPE_CHECKING:
    from collections.abc import Iterator

Process = subprocess.Popen[bytes] | forks.Forked
_ROOT = Path(__file__).resolve().parents[2]


class Engine:
    """A running engine. The socket exists before the engine is ready, so a first request simply waits."""

    def __init__(self, process: Process, uds: str, log: Path) -> None:
        self.process, self.uds, self.log = process, uds, log
        transport = httpx.HTTPTransport(uds=uds)
        self.http = httpx.Client(transport=transport, base_url="http://engine", timeout=60)

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send a body."""
        return self.http.post(path, json=body)

    def chat(self, model: Path | str, text: str = "hello there", **body: Any) -> Any:
        """Ask for a chat answer and return the body of a success."""
        body.setdefault("messages", [{"role": "user", "content": text}])
        response = self.post("/v1/chat/completions", model=str(model), **body)
        assert response.status_code == 200, response.text
        return response.json()

    def content(self, model: Path | str, text: str = "hello there", **body: Any) -> str:
        """Ask for a chat answer and return its text."""
        found: str = self.chat(model, text, **body)["choices"][0]["message"]["content"]
        return found

    def error(self, path: str, status: int, **body: Any) -> Any:
        """Send a body that must fail and return the error."""
        response = self.post(path, **body)
        assert response.status_code == status, response.text
        return response.json()["error"]

    def stream(self, path: str, **body: Any) -> list[Any]:
        """Return all events of a stream, comments as ``{"comment"}``, the end as ``[DONE]``."""
        with self.http.stream("POST", path, json={**body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            return [read_line(line) for line in response.iter_lines() if line]

    def get(self, path: str) -> Any:
        """Return a JSON answer."""
        return self.http.get(path).json()

    def model(self, name: Path | str) -> Any:
        """Return what /health says of a model."""
        return self.get("/health")["models"][str(name)]


def read_line(line: str) -> Any:
    """Return an SSE line as a value."""
    if line.startswith(": "):
        return {"comment": line[2:]}
    data = line.removeprefix("data: ")
    return data if data == "[DONE]" else json.loads(data)


def environment(**extra: str) -> dict[str, str]:
    """Return an environment without anything of the machine that could reach the engine's settings."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LOCAL_ONLY": "true", **extra}


def _start(arguments: tuple[str, ...], env: dict[str, str], log: Path) -> tuple[Process, IO[bytes]]:
    """Start an engine; return it and its standard output.

    Where something is changed that is read while the engine imports (where models come from), it is the true command.
    """
    words = ("app.engine", *arguments)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stdout, log.open("wb") as stderr:
        if any(name == "LOCAL_ONLY" or name.startswith("HF_") for name in env):
            command = [sys.executable, "-m", *words]
            process: Process = subprocess.Popen(
                command, cwd=_ROOT, env=environment(**env), stdout=stdout, stderr=stderr
            )
        else:
            process = forks.start(*words, env=environment(**env), stdout=stdout, stderr=stderr)
    return process, os.fdopen(reader, "rb")


@contextmanager
def running(*arguments: str, **env: str) -> Iterator[Engine]:
    """Run an engine on a Unix socket while the block runs, and see that it ends when asked."""
    with tempfile.TemporaryDirectory(prefix="eng") as folder:
        uds, log = f"{folder}/s", Path(folder) / "log"
        process, stdout = _start(("--uds", uds, *arguments), env, log)
        try:
            assert stdout.readline() == f"listening on {uds}\n".encode(), log.read_text()
            engine = Engine(process, uds, log)
            with engine.http:
                yield engine
        finally:
            process.terminate()
            with stdout:
                process.wait(20)
