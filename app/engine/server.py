"""The engine's HTTP face: OpenAI's endpoints, health, statistics and administration, as one bare ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

from app.engine import params, report, wire
from app.engine.answer import Answers, gone, state_line
from app.engine.embeddings import embeddings
from app.engine.errors import EngineError, invalid
from app.engine.models import Keeper
from app.engine.reply import Reply, read_json
from app.engine.thread import MlxThread
from app.errors import CallerError, PolicyError, SluiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.engine.model import Model
    from app.engine.reply import Receive, Send
    from app.engine.settings import EngineSettings

    Handler = Callable[[dict[str, Any], Reply], Awaitable[None]]

log = logging.getLogger("sluice.engine")
STALLED = 75  # the exit code where a step hangs: EX_TEMPFAIL, a restart may help
_PROGRESS_S = 0.5  # seconds between two lines of progress
_JOIN_S = 5.0  # seconds for the step at work when the engine goes down


class App:
    """The ASGI application. ``start`` and ``close`` bracket its life on the event loop.

    ``found`` is what ``runtime.prepare`` found, and is told in ``/health``.
    """

    def __init__(self, settings: EngineSettings, found: dict[str, Any]) -> None:
        self._settings = settings
        self._found = found
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/embeddings"): self._embed,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/stats"): self._stats,
            ("POST", "/admin/load"): self._load,
            ("POST", "/admin/pull"): self._pull,
            ("POST", "/admin/unload"): self._unload,
        }

    async def start(self) -> None:
        """Start the MLX thread and what is to be preloaded."""
        self._thread = MlxThread(asyncio.get_running_loop())
        # OpenBLAS has no products of 16-bit numbers.
        widen = self._found["device"] == "cpu" and self._found["blas"] is not None
        self._keeper = Keeper(self._settings, self._thread, widen=widen)
        self._answers = Answers(self._keeper, self._thread, self._settings)
        self._thread.start()
        self._keeper.start()
        self._watch = asyncio.create_task(self._watchdog())

    async def close(self) -> None:
        """End downloads, loads and the MLX thread."""
        self._watch.cancel()
        await self._keeper.close()
        self._thread.post(self._thread.clear)
        self._thread.stop()
        await asyncio.to_thread(self._thread.join, _JOIN_S)

    async def _watchdog(self) -> None:
        """End the process where a step hangs for good: nothing inside it can end a call into a device driver."""
        limit = self._settings.stall_exit_s
        while limit:
            await asyncio.sleep(min(limit / 4, 5.0))
            if self._thread.busy_s() > limit or not self._thread.alive:
                log.critical("a step has taken more than %.0f s; the engine ends", limit)
                os._exit(STALLED)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request; the work is cancelled as soon as the client leaves."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        reply = Reply(send)
        try:
            handler = self._handler(scope)
            body = await read_json(receive) if scope["method"] == "POST" else {}
            await self._race(handler(body, reply), receive)
        except SluiceError as error:
            await reply.fail(error)
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.fail(EngineError(f"the engine failed: {type(error).__name__}: {error}", status=500))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _handler(self, scope: dict[str, Any]) -> Handler:
        method, path = scope["method"], scope["path"]
        if self._settings.key and path != "/health":
            self._authenticate(scope)
        handler = self._routes.get((method, path))
        if handler is not None:
            return handler
        if any(path == known for _, known in self._routes):
            raise CallerError(f"{path} does not take {method}", status=405, code="method_not_allowed")
        raise CallerError(f"there is no {path} here", status=404, code="not_found")

    def _authenticate(self, scope: dict[str, Any]) -> None:
        sent = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(sent, b"Bearer " + self._settings.key.encode()):
            raise PolicyError(
                "wrong or missing key: send ENGINE_KEY as 'Authorization: Bearer <key>'",
                status=401,
                type="authentication_error",
                code="invalid_api_key",
            )

    async def _race(self, work: Any, receive: Receive) -> None:
        task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # --- OpenAI -------------------------------------------------------------------------------------------------

    def _model(self, body: dict[str, Any]) -> Model:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise invalid("model", "must be the name of a model")
        return self._keeper.find(name)

    async def _chat(self, body: dict[str, Any], reply: Reply) -> None:
        model, wanted = self._model(body), params.parse_chat(body)
        await self._answers.answer(model, wanted, wire.ChatWire(model.name), reply)

    async def _complete(self, body: dict[str, Any], reply: Reply) -> None:
        model, wanted = self._model(body), params.parse_completion(body)
        await self._answers.answer(model, wanted, wire.TextWire(model.name), reply)

    async def _embed(self, body: dict[str, Any], reply: Reply) -> None:
        await reply.json(await embeddings(self._keeper, self._thread, self._settings, self._model(body), body))

    async def _models(self, _: dict[str, Any], reply: Reply) -> None:
        now = int(time.time())
        data = [
            {
                "id": model.name,
                "object": "model",
                "created": now,
                "owned_by": "mlx",
                **report.describe(model, self._settings),
            }
            for model in self._keeper.models.values()
        ]
        await reply.json(orjson.dumps({"object": "list", "data": data}))

    async def _health(self, _: dict[str, Any], reply: Reply) -> None:
        status, body = report.health(self._keeper, self._thread, self._settings)
        await reply.json(orjson.dumps(self._found | body), status)

    async def _stats(self, _: dict[str, Any], reply: Reply) -> None:
        await reply.json(orjson.dumps(report.stats(self._keeper, self._thread)))

    # --- administration -----------------------------------------------------------------------------------------

    async def _load(self, body: dict[str, Any], reply: Reply) -> None:
        model = self._model(body)
        await self._progress(model, self._keeper.load(model, pin=body.get("pin") is True), body, reply)

    async def _pull(self, body: dict[str, Any], reply: Reply) -> None:
        model = self._model(body)
        await self._progress(model, self._keeper.pull(model), body, reply)

    async def _unload(self, body: dict[str, Any], reply: Reply) -> None:
        model = self._model(body)
        await self._keeper.unload(model)
        await reply.json(orjson.dumps(report.describe(model, self._settings)))

    async def _progress(self, model: Model, work: Any, body: dict[str, Any], reply: Reply) -> None:
        """Wait for the work; with ``"stream": true`` send the model's state as events meanwhile.

        The client's leaving does not end a download or a load that others may wait for; ``/admin/unload`` does.
        """
        task = asyncio.ensure_future(work)
        try:
            while body.get("stream") is True and not task.done():
                await reply.send(wire.event({**report.describe(model, self._settings), "line": state_line(model)}))
                await asyncio.wait({task}, timeout=_PROGRESS_S)
            await task
        finally:
            task.cancel()
        state = report.describe(model, self._settings)
        if reply.started:
            await reply.send(wire.event(state) + wire.DONE, more=False)
        else:
            await reply.json(orjson.dumps(state))
