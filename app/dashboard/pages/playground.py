"""The playground: a prompt, where it would go, and the answer as it streams, with its times and cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from nicegui import background_tasks, ui

from app.dashboard.chat import Prompt, Said, chat
from app.dashboard.gateway import TroubleError
from app.dashboard.live import Act, Live, Region
from app.dashboard.render import render
from app.dashboard.shell import Page
from app.dashboard.waterfall import waterfall

_FRAME_S = 0.12
"""A streaming answer is drawn at most this often: eyes ask for no more."""


class _Playground:
    """One open page: the form, the preview, and the answer under way."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._running: asyncio.Task[None] | None = None

    def place(self) -> None:
        with ui.element("div").classes("two"):
            self._live.panel("prompt.html", {"models": "/v1/models"}, _choices, self.act, tag="section", classes="card")
            with ui.element("div").classes("stack"):
                self._answer = self._live.region("section", self.act)
                self._answer.classes("card").props('aria-label="Answer"')
                self._preview = Region("section")
                self._preview.classes("card").props('aria-label="Route"')
        self._show(None)
        self._preview.put(render("route.html", route=None))
        ui.context.client.on_disconnect(self._stop)

    async def act(self, act: Act) -> None:
        if act["do"] == "stop":
            self._stop()
            return
        prompt = Prompt(act.get("prompt", ""), act.get("model", "auto"), act.get("complexity", ""), "stream" in act)
        if not prompt.text.strip():
            raise TroubleError("The prompt is empty.", "Write something first.")
        await self._preview_of(prompt)
        if act["do"] == "send":
            self._stop()
            self._running = background_tasks.create(self._run(prompt))

    def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _preview_of(self, prompt: Prompt) -> None:
        body = prompt.body()
        try:
            route = await self._live.gateway.send("POST", "/v1/route", body, headers=prompt.headers())
        except TroubleError as trouble:
            self._preview.put(render("failed.html", trouble=trouble))
        else:
            self._preview.put(render("route.html", route=route))

    async def _run(self, prompt: Prompt) -> None:
        """Stream the answer into the page."""
        said, drawn = Said(), 0.0
        self._show(said)
        try:
            async with contextlib.aclosing(chat(self._live.gateway, prompt)) as pieces:
                async for said in pieces:
                    if said.done or time.monotonic() - drawn >= _FRAME_S:
                        drawn = time.monotonic()
                        self._show(said)
        except TroubleError as trouble:
            self._show(said, trouble=trouble)
        except asyncio.CancelledError:
            self._show(said, stopped=True)
            raise

    def _show(self, said: Said | None, *, trouble: TroubleError | None = None, stopped: bool = False) -> None:
        performance = (said.performance if said is not None else None) or {}
        ended = said is not None and (said.done or stopped or trouble is not None)
        self._answer.put(
            render(
                "answer.html",
                said=said,
                trouble=trouble,
                stopped=stopped,
                ended=ended,
                performance=performance,
                bars=waterfall(performance.get("stages") or {}),
            )
        )


PAGE = Page(
    "playground",
    "/playground",
    "Playground",
    "Send one prompt through Sluice as a client would. It is billed and counted like any other call.",
    lambda live: _Playground(live).place(),
)


def _choices(models: dict[str, Any]) -> dict[str, Any]:
    """Sort what may stand in ``model`` into roles and the like, and targets."""
    names = [each["id"] for each in models["data"]]
    return {"roles": [each for each in names if "/" not in each], "targets": [each for each in names if "/" in each]}
