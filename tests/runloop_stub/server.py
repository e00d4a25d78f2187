"""Runloop's API and tunnels, as far as its documentation and its official client tell (runloop-api-client 3.0.0)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

from tests.runloop_stub.box import Running, StubBox
from tests.upstream.log import Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

KEY = "runloop-key"
_LINES = 100
_TUNNEL_AUTH = "x-runloop-tunnel-authorization"


class RunloopStub:
    """``async with RunloopStub(tmp_path) as runloop``.

    Attributes:
        boxes: by id, in order of creation.
        calls: every control call, as ``POST /v1/devboxes/{id}/resume`` and the like, in order.
        resume_s: how long a resume takes.
        broken_blueprints: boxes created from these fail.
        refuse_tunnels: every tunnel answers 401, whatever the token.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.boxes: dict[str, StubBox] = {}
        self.calls: list[str] = []
        self.resume_s = 0.05
        self.broken_blueprints: set[str] = set()
        self.refuse_tunnels = False
        self.url = ""
        self._waiters = Waiters()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._http = aiohttp.ClientSession(auto_decompress=False)
        self._later(self._watch_idle())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for box in self.boxes.values():
            await box.die()
        await self._http.close()
        await self._runner.cleanup()

    def _routes(self) -> list[web.RouteDef]:
        box, execution = "/v1/devboxes/{id}", "/v1/devboxes/{id}/executions/{eid}"
        post = {
            "/v1/devboxes": self._create,
            f"{box}/wait_for_status": self._wait,
            f"{box}/suspend": self._suspend,
            f"{box}/resume": self._resume,
            f"{box}/keep_alive": self._keep_alive,
            f"{box}/shutdown": self._shutdown,
            f"{box}/enable_tunnel": self._enable_tunnel,
            f"{box}/execute": self._execute,
            f"{box}/execute_async": self._execute_async,
            f"{execution}/send_std_in": self._send_std_in,
            f"{execution}/wait_for_status": self._wait_for_command,
            f"{execution}/kill": self._kill,
        }
        get = {
            "/v1/devboxes": self._list,
            box: self._retrieve,
            execution: self._retrieve_execution,
            f"{execution}/stream_stdout_updates": self._stream_stdout,
        }
        return [
            *(web.post(path, self._control(handler)) for path, handler in post.items()),
            *(web.get(path, self._control(handler)) for path, handler in get.items()),
            web.post("/_ollama/{id}", self._serve_ollama),
            web.route("*", "/tunnel/{port}-{key}/{rest:.*}", self._tunnelled),
        ]

    @property
    def tunnel_url(self) -> str:
        """The template of the tunnels' addresses."""
        return f"{self.url}/tunnel/{{port}}-{{key}}"

    def count(self, what: str) -> int:
        """Return how many control calls ended in this word."""
        return sum(1 for call in self.calls if call.endswith(what))

    def only(self) -> StubBox:
        """Return the one box there is."""
        (box,) = self.boxes.values()
        return box

    async def wait_for(self, wish: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return as soon as it is as wished; looked at whenever a box changes.

        Raises:
            TimeoutError: it was not in time.
        """
        await self._waiters.wait(wish, timeout_s)

    async def add(self, *, status: str = "running", serve: bool = True, idle_s: int | None = None) -> StubBox:
        """Make a box that somebody else created."""
        parameters: dict[str, Any] = {}
        if serve:
            parameters["launch_commands"] = ["OLLAMA_HOST=0.0.0.0 ollama serve &"]
        if idle_s is not None:
            parameters["lifecycle"] = {"after_idle": {"idle_time_seconds": idle_s, "on_idle": "suspend"}}
        box = self._new(parameters)
        if status == "running":
            await box.boot()
        else:
            box.become(status)
        return box

    def _new(self, parameters: dict[str, Any]) -> StubBox:
        box_id = f"dbx_{secrets.token_hex(6)}"
        box = StubBox(box_id, self._directory / box_id, self.url, parameters, self._waiters.changed)
        self.boxes[box_id] = box
        return box

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.05)
            for box in list(self.boxes.values()):
                idle_s = box.idle_s()
                if idle_s is not None and box.status == "running" and loop.time() - box.used > idle_s:
                    await box.suspend()

    # -- the API -------------------------------------------------------------------------------------------------------

    def _control(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.calls.append(f"{request.method} {request.path}")
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return _error(401, "Invalid API key.")
            with contextlib.suppress(KeyError):
                return await handler(request)
            return _error(404, "Not found.")

        return answer

    def _box(self, request: web.Request) -> StubBox:
        return self.boxes[request.match_info["id"]]

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        box = self._new(asked.get("launch_parameters") or {})
        box.metadata, box.blueprint_id = asked.get("metadata") or {}, asked.get("blueprint_id")
        if asked.get("tunnel"):
            self._tunnel(box, asked["tunnel"])
        if box.blueprint_id in self.broken_blueprints:
            box.failure = "launch command failed"
            box.become("failure")
        else:
            self._later(self._boot(box, "provisioning"))
        return web.json_response(box.view())

    async def _boot(self, box: StubBox, status: str) -> None:
        box.become(status)
        await asyncio.sleep(self.resume_s)
        if box.status == status:  # nobody has shut it down meanwhile
            await box.boot()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"devboxes": [box.view() for box in self.boxes.values()], "has_more": False})

    async def _retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(self._box(request).view())

    async def _wait(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await request.json()
        with contextlib.suppress(TimeoutError):
            await self.wait_for(lambda: box.status in asked["statuses"], min(asked.get("timeout_seconds", 30), 30))
            return web.json_response(box.view())
        return _error(408, "The devbox did not reach the status in time.")

    async def _suspend(self, request: web.Request) -> web.Response:
        self._later(self._box(request).suspend())
        return web.json_response(self._box(request).view())

    async def _resume(self, request: web.Request) -> web.Response:
        box = self._box(request)
        if box.status != "suspended":
            return _error(400, f"The devbox is {box.status}.")
        box.resumes += 1
        box.become("resuming")
        self._later(self._boot(box, "resuming"))
        return web.json_response(box.view())

    async def _keep_alive(self, request: web.Request) -> web.Response:
        box = self._box(request)
        box.kept_alive += 1
        box.touch()
        return web.json_response({})

    async def _shutdown(self, request: web.Request) -> web.Response:
        box = self._box(request)
        await box.die()
        box.become("shutdown")
        return web.json_response(box.view())

    async def _enable_tunnel(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await request.json()
        if box.status != "running":
            return _error(400, "The devbox is not running.")
        return web.json_response(self._tunnel(box, asked))

    @staticmethod
    def _tunnel(box: StubBox, asked: dict[str, Any]) -> dict[str, Any]:
        open_ = asked.get("auth_mode", "open") == "open"
        box.tunnel = {
            "auth_mode": "open" if open_ else "authenticated",
            "auth_token": None if open_ else secrets.token_urlsafe(16),
            "create_time_ms": box.created_ms,
            "http_keep_alive": asked.get("http_keep_alive", True),
            "wake_on_http": asked.get("wake_on_http", False),
            "tunnel_key": secrets.token_hex(8),
        }
        return box.tunnel

    # -- commands ------------------------------------------------------------------------------------------------------

    async def _execute(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await request.json()
        if not asked.get("command_id"):
            return _error(400, "command_id is required.")
        eid = await box.execute(asked["command"])
        running = box.executions[eid]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(asked.get("optimistic_timeout") or 25, 25)), running.changed:
                await running.changed.wait_for(lambda: running.done)
        return web.json_response(_execution(box, eid, int(request.query.get("last_n", _LINES))))

    async def _execute_async(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await request.json()
        if box.status != "running":
            return _error(400, "The devbox is not running.")
        box.touch()
        eid = await box.execute(asked["command"], stdin=bool(asked.get("attach_stdin")))
        return web.json_response(_execution(box, eid))

    def _running(self, request: web.Request) -> tuple[StubBox, Running]:
        box = self._box(request)
        return box, box.executions[request.match_info["eid"]]

    async def _send_std_in(self, request: web.Request) -> web.Response:
        box, running = self._running(request)
        asked = await request.json()
        stdin = running.process.stdin
        if stdin is None or bool(asked.get("text")) == bool(asked.get("signal")):
            return _error(400, "Exactly one of nonempty text or a signal, to an execution with stdin.")
        if asked.get("text"):
            stdin.write(asked["text"].encode())
            with contextlib.suppress(ConnectionError):
                await stdin.drain()
        elif asked["signal"] == "EOF":
            stdin.close()
        return web.json_response(
            {"devbox_id": box.id, "execution_id": request.match_info["eid"], "success": True},
        )

    async def _wait_for_command(self, request: web.Request) -> web.Response:
        box, running = self._running(request)
        asked = await request.json()
        try:
            async with asyncio.timeout(min(asked.get("timeout_seconds") or 25, 25)), running.changed:
                await running.changed.wait_for(lambda: running.done)
        except TimeoutError:
            return _error(408, "Still running.")
        return web.json_response(_execution(box, request.match_info["eid"]))

    async def _retrieve_execution(self, request: web.Request) -> web.Response:
        box, _ = self._running(request)
        return web.json_response(_execution(box, request.match_info["eid"]))

    async def _kill(self, request: web.Request) -> web.Response:
        box, running = self._running(request)
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        return web.json_response(_execution(box, request.match_info["eid"]))

    async def _stream_stdout(self, request: web.Request) -> web.StreamResponse:
        _, running = self._running(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        sent = int(request.query.get("offset") or 0)
        while True:
            await running.beyond(sent)
            data = bytes(running.output[sent:])
            text = data.decode(errors="ignore")  # half a character waits for its other half
            if not text and running.done:
                return response
            sent += len(text.encode())
            event = web.json_response({"output": text, "offset": sent}).text
            await response.write(f"data: {event}\n\n".encode())

    # -- Ollama and the tunnels ----------------------------------------------------------------------------------------

    async def _serve_ollama(self, request: web.Request) -> web.StreamResponse:
        """Let the box's Ollama answer for as long as the process that asks for it lives."""
        box = self._box(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await box.start_ollama(request.query.get("host", ""))
        mine = box.serves
        try:
            while True:
                await asyncio.sleep(0.02)
                await response.write(b".")
        finally:
            if box.serves == mine:
                await box.stop_ollama()

    async def _tunnelled(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        box = next((each for each in self.boxes.values() if each.tunnel and each.tunnel["tunnel_key"] == key), None)
        if box is None or box.tunnel is None:
            return _error(404, "No such tunnel.")
        token = box.tunnel["auth_token"]
        if self.refuse_tunnels or (token and request.headers.get(_TUNNEL_AUTH) != f"Bearer {token}"):
            return _error(401, "The tunnel asks for its token.")
        if box.status != "running" or not box.serving:
            return _error(502, f"Nothing listens on port {request.match_info['port']}.")
        if "0.0.0.0" not in box.ollama_host:
            return web.Response(status=403)  # Ollama's own: it listens on loopback alone, and the Host is foreign
        box.touch()
        return await self._relayed(request, box)

    async def _relayed(self, request: web.Request, box: StubBox) -> web.StreamResponse:
        url = f"http://127.0.0.1:{box.ollama.port}/{request.match_info['rest']}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"host", _TUNNEL_AUTH}}
        response = None
        try:
            async with self._http.request(request.method, url, data=await request.read(), headers=headers) as inner:
                kept = {"content-type", "retry-after"}
                told = {name: value for name, value in inner.headers.items() if name.lower() in kept}
                response = web.StreamResponse(status=inner.status, headers=told)
                await response.prepare(request)
                async for data in inner.content.iter_any():
                    box.touch()
                    await response.write(data)
        except aiohttp.ClientError:
            if request.transport is not None:
                request.transport.abort()
            return response or web.Response(status=502)
        return response


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _execution(box: StubBox, eid: str, last: int = _LINES) -> dict[str, Any]:
    running = box.executions[eid]
    made: dict[str, Any] = {"devbox_id": box.id, "execution_id": eid, "status": "running"}
    if running.done:
        lines = running.output.decode(errors="replace").splitlines(keepends=True)
        made |= {"status": "completed", "exit_status": running.process.returncode, "stdout": "".join(lines[-last:])}
        made["stdout_truncated"] = len(lines) > last
    return made
