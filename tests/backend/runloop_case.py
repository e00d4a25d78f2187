"""What the tests of Runloop share: a stub, and the settings that lead to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.runloop_stub.server import KEY

if TYPE_CHECKING:
    import httpx

    from tests.conftest import Running
    from tests.runloop_stub import RunloopStub, StubBox

MODEL = "qwen2.5-coder"
TARGET = f"runloop/{MODEL}"
needs_sdk = pytest.importorskip("runloop_api_client", reason="the extra [runloop] is not installed")
INJECTIONS = [
    "`touch pwned1`",
    "$(touch pwned2)",
    '"; touch pwned3 #',
    '\\"; touch pwned4 #',
    "'; touch pwned5; echo '",
    "line\ntouch pwned6\n",
    "; rm -rf . ; touch pwned7",
    "${HOME:-$(touch pwned8)}\ttouch pwned8\r\ntouch pwned8",
    "| tee pwned9 && touch pwned9 & ${IFS}touch${IFS}pwned9 > pwned9",
    "a\x00b; touch pwned11",
    "EOF\ntouch pwned10\n\x04\\\u2028$'touch pwned10' %s %n !touch",
]


def env(stub: RunloopStub, box: StubBox | None = None, chain: str = TARGET, **more: object) -> str:
    """Return the text of a ``.env`` file whose code role leads to the stub."""
    settings: dict[str, object] = {
        "RUNLOOP_API_KEY": KEY,
        "RUNLOOP_BASE_URL": stub.url,
        "RUNLOOP_TUNNEL_URL": stub.tunnel_url,
        "MODEL_CODE": chain,
        "MODEL_LARGE": "",
        "ON_WEAK": "serve",
    }
    if box is not None:
        settings["RUNLOOP_DEVBOX_ID"] = box.id
    return "".join(f"{name}={value}\n" for name, value in (settings | more).items())


def said(answer: httpx.Response) -> str:
    """Return the text of a good plain answer."""
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


async def ready(sluice: Running) -> dict[str, Any]:
    """Return what /health/ready says."""
    body: dict[str, Any] = (await sluice.client.get("/health/ready")).json()
    return body


async def metric(sluice: Running, name: str) -> float:
    """Return a metric's value, 0 where it has none."""
    text = (await sluice.client.get("/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
