"""A stage for browsers: the scripted upstream, a real gateway with a past, the real dashboard, and calls going through.

``scripts/screenshots`` uses it as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx

from tests import forks
from tests.dashboard import past
from tests.guard.redis_server import free_port
from tests.plain import PLAIN

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.engine.fakehub import Hub

Process = subprocess.Popen[bytes] | forks.Forked
ROOT = Path(__file__).resolve().parents[2]
KEY = "the-admin-key"
CALLER_KEY = "a-callers-key"
_LIMIT_S = 120.0
"""A machine that does much else starts slowly."""
_PROMPTS = (
    "Write a python function that reverses a list",
    "hello, how are you today?",
    "Summarise: the river rose, and the gate was opened.",
    "Prove step by step that the square root of two is irrational.",
)
READY, SLOW, GATED = "mlx-community/Phi-3.5-mini-instruct-4bit", "org/stall-7b", "org/gated-13b"
MODELS = (READY, SLOW, GATED)
"""Local models: one that comes, one that comes when it is told to, one that the hub refuses."""


@dataclass
class Stage:
    """Everything that runs.

    Attributes:
        url: the dashboard's.
        api: a client of the gateway, with the admin key.
        gateway: its process, which a test may end.
        hub: a model hub with tiny models; None where local models are not installed.
    """

    url: str
    api: httpx.Client
    gateway: Process
    env: Path
    hub: Hub | None
    _stop: threading.Event = field(default_factory=threading.Event)

    def load(self, pace_s: float) -> None:
        """Send a call now and then until the stage is left, plain and streamed."""
        number = 0
        headers = {"authorization": f"Bearer {CALLER_KEY}"}
        with httpx.Client(verify=PLAIN, base_url=str(self.api.base_url), headers=headers, timeout=30) as client:
            while not self._stop.wait(pace_s):
                number += 1
                message = {"role": "user", "content": _PROMPTS[number % len(_PROMPTS)]}
                body = {"model": "auto", "stream": number % 2 == 0, "messages": [message]}
                with contextlib.suppress(httpx.TransportError):  # the test may have ended the gateway
                    client.post("/v1/chat/completions", json=body)


@contextlib.contextmanager
def stage(folder: Path, *, calls: int = 200, pace_s: float = 0.25) -> Iterator[Stage]:
    """Set the stage.

    Args:
        folder: for what it keeps.
        calls: that the ledger holds from before, over the last hours.
        pace_s: seconds between the calls that go through.
    """
    data, env = folder / "data", folder / ".env"
    upstream, port, dashboard_port = free_port(), free_port(), free_port()
    local = importlib.util.find_spec("llguidance") is not None
    env.write_text(_settings(f"http://127.0.0.1:{upstream}/v1", port, dashboard_port, data, local=local))
    with contextlib.ExitStack() as stack:  # what takes long to start does so while the past is written
        dashboard = _start(stack, folder / "dashboard.log", "app", "dashboard", "--env-file", str(env))
        words = ("--port", str(upstream), "--say-scripted")
        scripted = _start(stack, folder / "upstream.log", "tests.upstream", *words)
        past.remember(data, calls)
        hub = _hub(stack, folder) if local else None
        told = {} if hub is None else {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
        gateway = _start(stack, folder / "gateway.log", "app", "serve", "--env-file", str(env), **told)
        headers = {"authorization": f"Bearer {KEY}"}
        api = stack.enter_context(
            httpx.Client(verify=PLAIN, base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10)
        )
        shown = f"http://127.0.0.1:{dashboard_port}"
        _answers(f"{api.base_url}/health/live", gateway)
        _answers(f"http://127.0.0.1:{upstream}/v1/models", scripted)
        _answers(f"{shown}/health/live", dashboard)
        until(lambda: api.get("/admin/calls").status_code == 200)
        found = Stage(shown, api, gateway, env, hub)
        caller = threading.Thread(target=found.load, args=(pace_s,))
        caller.start()
        try:
            yield found
        finally:
            found._stop.set()
            caller.join()
            for each in (gateway, dashboard, scripted):  # together: each takes a while to leave
                each.terminate()


def _hub(stack: contextlib.ExitStack, folder: Path) -> Hub:
    """Serve a tiny model under every name."""
    from tests.engine import fakehub, tiny

    return stack.enter_context(fakehub.serving(tiny.make(folder / "tiny", tiny.QWEN)))


def _start(stack: contextlib.ExitStack, log: Path, *words: str, **env: str) -> Process:
    sink: IO[bytes] = stack.enter_context(log.open("wb"))
    process: Process
    if words[0] == "app":
        process = forks.start(*words, env=os.environ | env, stdout=sink, stderr=sink)
    else:
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=sink, stderr=sink)

    def end() -> None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _settings(upstream: str, port: int, dashboard_port: int, data: Path, *, local: bool) -> str:
    keys = "".join(f"{name}_API_KEY=k\n{name}_BASE_URL={upstream}\n" for name in ("GROQ", "OPENAI", "GEMINI"))
    return (
        f"PORT={port}\nDASHBOARD_PORT={dashboard_port}\nADMIN_KEY={KEY}\nAPI_KEYS={CALLER_KEY}\nDATA_DIR={data}\n{keys}"
        f"LOG_LEVEL=warning\nMODEL_FAST=groq/llama-3.1-8b-instant\nMODEL_ACCURATE={past.SET_BACK}\n"
        f"PARITY__ACCURATE__REFERENCE={past.REFERENCE}\nSHADOW_SHARE=0\n"
        f"MLX_ENABLED={str(local).lower()}\nMLX_MODELS={','.join(MODELS)}\nOLLAMA_ENABLED=false\nMODEL_SMALL=groq/llama-3.1-8b-instant\n"
        "MODEL_MEDIUM=groq/llama-3.3-70b-versatile\nMODEL_LARGE=gemini/gemini-2.5-pro,openai/gpt-5.1\n"
        "MODEL_CODE=groq/llama-3.3-70b-versatile\nMODEL_ANALYSIS=groq/qwen-2.5-72b\n"
    )


def until(true: Any, limit_s: float = _LIMIT_S) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def _answers(url: str, process: Process) -> None:
    def live() -> bool:
        assert process.poll() is None, "it ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url).status_code == 200
        return False

    until(live)


# -- the browser -------------------------------------------------------------------------------------------------------


def chromium() -> str | None:
    """Return the path of the system's chromium; none is downloaded."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run the system's chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()
