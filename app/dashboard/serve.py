"""Running the dashboard: the pages behind the gatekeeper, in one process."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from app.dashboard.config import Config
from app.dashboard.gatekeeper import Gatekeeper
from app.dashboard.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from app.settings import Live

_HERE = Path(__file__).parent
_ICON = _HERE / "static" / "icon.svg"


def create_app(config: Config) -> ASGIApp:
    """Build the dashboard's app. One a process: NiceGUI knows but one."""
    # NiceGUI keeps files of its own storage, which is not used here, in the working directory unless told otherwise.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(Path(tempfile.gettempdir()) / "sluice-dashboard"))
    from nicegui import ui

    from app.dashboard import pages

    gateway = Gateway(config)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=life)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    pages.install(gateway, config)
    ui.run_with(
        app, title="Sluice", favicon=_ICON, dark=None, language="en-US", tailwind=False, show_welcome_message=False
    )
    return Gatekeeper(app, config)


def serve(live: Live) -> None:
    """Serve until told to stop."""
    config = Config(live)
    settings = live.current
    uvicorn.run(
        create_app(config),
        host=settings.dashboard_host,
        port=settings.dashboard_port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
