"""The scripted upstream: a server that plays every backend, and the log of what it was asked."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import orjson

from tests.upstream import control, http, messages, ollama, relays, responses, shapes
from tests.upstream.faults import Faults, Moment, parse_name, parse_script
from tests.upstream.http import BadRequest, ClientGone, Connection, Request
from tests.upstream.log import Attempt, Ended, Waiters
from tests.upstream.play import Cut, Exchange, answer_chat, answer_json, fail, play

Answer = Callable[[Exchange], Awaitable[None]]
MODELS = ("ok", "small", "medium", "large", "embedding")


class Upstream:
    """A backend that answers as the model's name says; ``async with Upstream() as up: up.url``.

    Attributes:
        log: every attempt, in order of arrival.
        key: where set, another bearer token gets a 401.
        open, max_open: connections now and at most.
        active, max_active: attempts under way now and at most.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        seed: int = 0,
        friendly: bool = False,
        key: str | None = None,
        models: Iterable[str] = MODELS,
        on_end: Callable[[Attempt], None] | None = None,
    ) -> None:
        self.host, self.port, self.seed, self.friendly, self.key = host, port, seed, friendly, key
        self.models = tuple(models)
        self._on_end = on_end
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._waiters = Waiters()
        self._count = 0
        self.max_open = 0
        self.reset()

    def reset(self) -> None:
        """Forget the log, the scripts and the counts; attempts under way go on and are no longer seen."""
        self.log: list[Attempt] = []
        self.active = self.max_active = 0
        self.max_open = len(self._connections)
        self._moments: dict[str, Moment] = {}
        self._scripts: dict[str, list[Faults]] = {}
        self._marks: dict[str, list[Faults]] = {}
        self._always: dict[str, Faults] = {}

    @property
    def url(self) -> str:
        """The base URL for OpenAI's clients."""
        return f"http://{self.host}:{self.port}/v1"

    @property
    def open(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop at the same port again."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._accept), self.host, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, reset all connections and end all tasks; connecting is refused from now on."""
        if self._server is None:
            return
        self._server.close()
        connections = dict(self._connections)
        for conn, task in connections.items():
            conn.reset()
            task.cancel()
        await asyncio.gather(*connections.values(), *(conn.lost.wait() for conn in connections), return_exceptions=True)
        self._connections.clear()
        await self._server.wait_closed()
        self._server = None

    def script(self, model: str, faults: Iterable[str]) -> None:
        """Deal out one fault an attempt to the next attempts at a model, then go on as its name says.

        Raises:
            ValueError: there is no such fault.
        """
        self._scripts.setdefault(model, []).extend([parse_script(text) for text in faults])

    def mark(self, text: str, faults: Iterable[str]) -> None:
        """Deal out one fault an attempt to the next attempts whose body holds a text, whatever their model.

        Raises:
            ValueError: there is no such fault.
        """
        self._marks[text] = [parse_script(each) for each in faults]

    def always(self, model: str, faults: str | None) -> None:
        """Play these faults at a model whatever its name, until called with None.

        Raises:
            ValueError: there is no such fault.
        """
        self._always.pop(model, None)
        if faults is not None:
            self._always[model] = parse_script(faults)

    def of(self, model: str) -> list[Attempt]:
        """Return the attempts at a model."""
        return [attempt for attempt in self.log if attempt.model == model]

    async def wait_for(self, wish: Callable[[list[Attempt]], bool], timeout_s: float = 10.0) -> list[Attempt]:
        """Return the log as soon as it is as wished; looked at whenever an attempt begins, goes on or ends.

        Raises:
            TimeoutError: it was not in time.
        """
        await self._waiters.wait(lambda: wish(self.log), timeout_s)
        return self.log

    def _accept(self, conn: Connection) -> None:
        self._count += 1
        conn.number = self._count
        self._connections[conn] = asyncio.get_running_loop().create_task(self._serve(conn))
        self.max_open = max(self.max_open, self.open)

    async def _serve(self, conn: Connection) -> None:
        try:
            await self._requests(conn)
            conn.close()
            await conn.lost.wait()
        finally:
            conn.close()
            self._connections.pop(conn, None)
            self._waiters.changed()

    async def _requests(self, conn: Connection) -> None:
        try:
            while await self._one(conn):
                pass
        except (ClientGone, Cut):
            pass
        except BadRequest as problem:
            body = orjson.dumps(shapes.error(str(problem)))
            conn.transport.write(http.whole(problem.status, body, [("connection", "close")]))

    async def _one(self, conn: Connection) -> bool:
        request = await conn.read_request()
        if "/_" in request.path:
            await conn.write(await control.answer(self, request))
            return request.keep_alive
        answer, model = self._route(request)
        attempt = self._begin(conn, request, model)
        moment = self._moments[model]
        faults = self._faults(model, attempt.body) if self._allowed(request) else Faults()
        attempt.faults = tuple(fault.label for fault in faults)
        body = attempt.body if isinstance(attempt.body, dict) else {}
        x = Exchange(conn, attempt, faults, body, self._waiters.changed, self.friendly)
        self._waiters.changed()
        await self._play(x, answer, moment)
        return request.keep_alive

    def _route(self, request: Request) -> tuple[Answer, str]:
        path, body = request.path.rstrip("/"), relays.body_of(request)
        if not self._allowed(request):
            return _refuse(401), _model(body)
        if (own := ollama.route(self, request.method, path, body)) is not None:
            return own, _model(body) or path
        for tail, answer in _POST.items():
            if path.endswith(tail):
                usable = request.method == "POST" and isinstance(body, dict)
                return (answer if usable else _refuse(400 if request.method == "POST" else 405)), _model(body)
        return self._models(request.method, path), "/models"

    def _allowed(self, request: Request) -> bool:
        if "/messages" in request.path and "x-api-key" in request.headers:
            return self.key is None or request.headers["x-api-key"] == self.key
        return self.key is None or request.headers.get("authorization") == f"Bearer {self.key}"

    def _models(self, method: str, path: str) -> Answer:
        _, found, name = path.partition("/models")
        if method != "GET" or not found:
            return _refuse(404)
        cards = {model: shapes.model_card(model) for model in self.models}
        if not name:
            return lambda x: answer_json(x, {"object": "list", "data": list(cards.values())})
        card = cards.get(name.removeprefix("/"))
        return _refuse(404) if card is None else lambda x: answer_json(x, card)

    def _begin(self, conn: Connection, request: Request, model: str) -> Attempt:
        moment = self._moments.get(model)
        if moment is None:
            moment = self._moments[model] = Moment(self.seed ^ zlib.crc32(model.encode("utf-8", "replace")))
        moment.begin()
        attempt = Attempt(
            number=moment.attempts,
            at=time.monotonic(),
            path=request.path,
            model=model,
            connection=conn.number,
            headers=request.headers,
            body=relays.body_of(request),
        )
        self.log.append(attempt)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        return attempt

    def _faults(self, model: str, body: Any) -> Faults:
        moment = self._moments[model]
        marked = (script for text, script in self._marks.items() if script and text in str(body))
        if (script := next(marked, None)) is not None:
            return script.pop(0).now(moment, scripted=True)
        if script := self._scripts.get(model):
            return script.pop(0).now(moment, scripted=True)
        if model in self._always:
            return self._always[model].now(moment)
        return parse_name(model).now(moment)

    async def _play(self, x: Exchange, answer: Answer, moment: Moment) -> None:
        ended: Ended = "stopped"
        try:
            await play(x, answer)
            ended = "done"
        except ClientGone:
            ended = "client_closed"
            raise
        except Cut as cut:
            ended = "done" if cut.whole else "cut"
            raise
        finally:
            self._end(x, ended, moment)

    def _end(self, x: Exchange, ended: Ended, moment: Moment) -> None:
        attempt = x.attempt
        attempt.ended, attempt.ended_at = ended, time.monotonic()
        if ended == "client_closed":
            attempt.closed_at = x.conn.gone_at
        moment.under_way -= 1
        if self._moments.get(attempt.model) is moment:
            self.active -= 1
        if self._on_end is not None:
            self._on_end(attempt)
        self._waiters.changed()


_POST: dict[str, Answer] = {
    "/chat/completions": answer_chat,
    "/completions": answer_chat,
    "/embeddings": lambda x: answer_json(x, shapes.embeddings(x.body, always=x.faults.find("floats", "coded"))),
    "/moderations": lambda x: answer_json(x, relays.moderation(x.body)),
    "/audio/speech": relays.speech,
    "/audio/transcriptions": relays.transcription,
    "/audio/translations": relays.transcription,
    "/images/generations": relays.images,
    "/images/edits": relays.images,
    "/images/variations": relays.images,
    "/messages": messages.answer,
    "/messages/count_tokens": messages.count_tokens,
    "/responses": responses.answer,
}


def _model(body: Any) -> str:
    return str(body.get("model", "")) if isinstance(body, dict) else ""


def _refuse(status: int) -> Answer:
    problem = shapes.failure(parse_script(str(status))[0])
    return lambda x: fail(x, problem)
