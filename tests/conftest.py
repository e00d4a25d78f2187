"""Fixtures: a scripted upstream and a real gateway, both on real sockets in the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, settings

from app.http1.protocol import Http1Protocol
from app.main import create_app
from app.settings import Live
from tests.ledger import ready
from tests.plain import PLAIN
from tests.schema import Checked
from tests.upstream import Upstream

if TYPE_CHECKING:
    from app.api.direct import Direct
    from app.gateway import Gateway

os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent / "data")
"""A folder without certificates: every client of HTTPS reads those of all authorities, which takes 50 ms."""
os.environ.pop("SSL_CERT_FILE", None)  # it would count for more

gc.disable()  # looking for garbage among what is imported takes a fifth of that time; until all is collected
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")  # a machine that does much else is slow, which proves nothing


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for garbage from now on, but not among all that is there: that stops a gateway for half a second."""
    gc.freeze()
    gc.set_threshold(20_000)  # as the program looks for it
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped a test for want of a program, where all programs are meant to be there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and os.environ.get("SLUICE_NO_SKIPS") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests gets into them."""
    from app.settings import Settings

    names = {name.upper() for name in Settings.model_fields}
    for name in list(os.environ):
        if name in names or name.startswith(("BACKENDS__", "ROLES__", "PARITY__", "AI_MODEL_", "CLOUDFLARE_")):
            monkeypatch.delenv(name)


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@dataclass
class Running:
    """A gateway that serves.

    Attributes:
        url: its base URL, ending in ``/v1``.
        client: an HTTP client whose base URL is the gateway's root.
        env: the ``.env`` file it follows.
    """

    url: str
    client: httpx.AsyncClient
    env: Path
    app: Direct

    @property
    def gateway(self) -> Gateway:
        return self.app.gateway

    async def chat(self, model: str, text: str = "hello there", **more: Any) -> httpx.Response:
        """Send a chat call; ``headers`` among the rest are the request's."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)


@contextlib.asynccontextmanager
async def running(env_file: Path, text: str) -> AsyncIterator[Running]:
    """Run a gateway with this text as its ``.env``; whatever it sends must be what OpenAI's description says.

    Nothing is kept unless the text says where.
    """
    kept = any(name in text for name in ("DATA_DIR=", "DATABASE_URL="))
    if "DATABASE_URL=" not in text:
        ready.fill(text)
    env_file.write_text(text if kept else f"DATABASE_URL=off\n{text}")
    app = create_app(Live(env_file))
    checked = Checked(app)
    server = Server(
        uvicorn.Config(checked, port=0, http=Http1Protocol, ws="none", lifespan="on", log_config=None, access_log=False)
    )
    # Without a limit: where calls wait for a connection, httpx looks at all of both whenever one of them ends.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        server.serving() as root,
        httpx.AsyncClient(verify=PLAIN, base_url=root, timeout=30, limits=limits) as client,
    ):
        yield Running(f"{root}/v1", client, env_file, app)
        await client.aclose()
        found = checked.violations()
        assert found == [], found


class Server(uvicorn.Server):
    """uvicorn's server, which begins and ends when it is told to: its own loop looks ten times a second."""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve while the block runs; the value is the base URL."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup()
        await self.on_tick(0)
        port = self.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await self._end()

    async def _end(self) -> None:
        """Close idle connections, let calls under way end, then end the app."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        await self.lifespan.shutdown()


Start = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start gateways: ``async with start("MODEL_LARGE=...") as sluice``."""

    def begin(text: str = "", *, up: Upstream | None = None) -> contextlib.AbstractAsyncContextManager[Running]:
        text = text if "MLX_" in text else f"MLX_ENABLED=false\n{text}"
        named = f"BACKENDS__UP__BASE_URL={up.url}\n" if up is not None else ""
        return running(tmp_path / ".env", named + text)

    return begin


@pytest.fixture
async def sluice(up: Upstream, start: Start) -> AsyncIterator[Running]:
    """A gateway in front of ``up``, whose large role is ``up/large``."""
    async with start("MODEL_LARGE=up/large\n", up=up) as found:
        yield found
