"""The servers that bench/gateway compares, each in front of the same upstream."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parts.machine import ROOT, await_http, free_port, rss_mb, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "bench-key-0123456789"
_PROMPT = (
    "Tell me in one short paragraph which city is the capital of France, since when it has been, and why the court did "
    "not stay at Versailles. Plain prose, please, without headings, and no more than sixty words in all."
)
_ROLES = ("SMALL", "MEDIUM", "LARGE", "CODE", "POLISH", "ANALYSIS", "FAST", "ACCURATE", "JUDGE", "EMBEDDING")


@dataclass
class Server:
    """One that is measured.

    Attributes:
        models: what to write in ``model`` for each kind of call: fast, paced, idle.
        headers: that its calls need.
        pid: of the process that was started; 0 where there is none to look at.
        ready_s: from the start of the process to its first answer.
        idle_mb: resident memory before any load.
    """

    name: str
    port: int
    models: dict[str, str] = field(default_factory=lambda: {kind: kind for kind in ("fast", "paced", "idle")})
    headers: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    ready_s: float = 0.0
    idle_mb: float = 0.0

    def request(self, kind: str, *, stream: bool) -> bytes:
        """Return a whole request as bytes."""
        asked = {
            "model": self.models[kind],
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Answer briefly and correctly."},
                {"role": "user", "content": _PROMPT},
            ],
            "temperature": 0.7,
            "max_tokens": 256,
        }
        body = json.dumps({**asked, "stream": True} if stream else asked, separators=(",", ":")).encode()
        headers = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json", **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def upstream(command: list[str], events: int, gap_us: int) -> Iterator[int]:
    """Run the upstream and yield its port."""
    with _process([*command, str(events), str(gap_us)], stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise RuntimeError("the upstream has no output")
        yield int(process.stdout.readline().split()[1])


@contextlib.contextmanager
def nginx(up: int, folder: Path) -> Iterator[Server]:
    """Run nginx as a plain reverse proxy with one worker, connections kept on both sides, nothing buffered."""
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
worker_processes 1; worker_rlimit_nofile 16384; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 1m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{up}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
                  proxy_read_timeout 600s; }}
  }}
}}
""")
    command = [shutil.which("nginx") or "nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]
    with _started(Server("nginx", port), command, "/") as server:
        yield server


@contextlib.contextmanager
def sluice(up: int, folder: Path, workers: int = 1, extra: str = "", root: Path = ROOT) -> Iterator[Server]:
    """Run the real program, everything on: keys, classifier, breaker, ledger, metrics, Server-Timing."""
    port = free_port()
    here = folder / f"sluice-{workers}-{port}"
    here.mkdir()
    roles = "".join(f"MODEL_{role}=up/fast\n" for role in _ROLES)
    (here / ".env").write_text(
        f"PORT={port}\nWORKERS={workers}\nAPI_KEYS={KEY}\nBACKENDS__UP__BASE_URL=http://127.0.0.1:{up}/v1\n"
        f"BACKENDS__UP__API_KEY=up-key\nBACKENDS__UP__IDLE_TIMEOUT_S=600\nSLOTS=4096\nLINE=4096\n"
        f"DATA_DIR={here}\nLOG_LEVEL=warning\n{roles}{extra}"
    )
    name = "Sluice" if workers == 1 else f"Sluice, {workers} workers"
    name += "" if root == ROOT else f" of {root.name}"
    models = {"fast": "auto", "paced": "up/paced", "idle": "up/idle"}
    server = Server(name, port, models, {"Authorization": f"Bearer {KEY}"})
    subprocess.run([sys.executable, "-m", "compileall", "-q", "app"], cwd=root, check=True)  # as after any first start
    command = [sys.executable, "-m", "app", "serve", "--env-file", str(here / ".env")]
    with _started(server, command, "/health/live", cwd=root) as running:
        yield running


@contextlib.contextmanager
def litellm(up: int, folder: Path, program: str) -> Iterator[Server]:
    """Run LiteLLM's proxy with one worker, as its documentation advises for production; nothing leaves the machine."""
    port = free_port()
    told = {"api_base": f"http://127.0.0.1:{up}/v1", "api_key": "up-key"}
    models = [
        {"model_name": kind, "litellm_params": {"model": f"openai/{kind}", **told}}
        for kind in ("fast", "paced", "idle")
    ]
    config = {
        "model_list": models,
        "general_settings": {"master_key": f"sk-{KEY}"},
        "litellm_settings": {"set_verbose": False, "json_logs": False, "telemetry": False},
    }
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [program, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    server = Server("LiteLLM", port, headers={"Authorization": f"Bearer sk-{KEY}"})
    with _started(server, command, "/health/liveliness", quiet) as running:
        yield running


@contextlib.contextmanager
def portkey(up: int, folder: Path, program: str) -> Iterator[Server]:
    """Run Portkey's gateway with node."""
    port = free_port()
    headers = {
        "Authorization": "Bearer up-key",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{up}/v1",
    }
    server = Server("Portkey", port, headers=headers)
    command = [shutil.which("node") or "node", program, f"--port={port}", "--headless"]
    environment = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
    with _started(server, command, "/", environment, folder) as running:
        yield running


@contextlib.contextmanager
def _started(
    server: Server, command: list[str], path: str, environment: dict[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Server]:
    began = time.perf_counter()
    with _process(command, cwd=cwd, env={**os.environ, **(environment or {})}) as process:
        await_http(server.port, path, process)
        server.ready_s = time.perf_counter() - began
        server.pid = process.pid
        time.sleep(1.0)  # what a server does after its first answer belongs to its start
        server.idle_mb = rss_mb(tree(process.pid))
        yield server


@contextlib.contextmanager
def _process(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, its open files unlimited as far as the machine allows."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    with subprocess.Popen(command, preexec_fn=_many_files, **quiet) as process:  # type: ignore[call-overload]  # noqa: PLW1509
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
