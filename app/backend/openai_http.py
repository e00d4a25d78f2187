"""The OpenAI wire over HTTP, with each backend's quirks as data (see catalog.py)."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict

from app import __version__
from app.backend import wire_errors
from app.backend.base import Event, Whole
from app.backend.catalog import adapt, encoded, has_wire, passed_on
from app.backend.http import endpoint_url
from app.backend.mould import Mould
from app.backend.native import COUNT_PATH, COUNTED, WIRES, NativeEvent, Spoken, spoken
from app.backend.shape import good_answer, good_chunk
from app.backend.sse import SSEDecoder
from app.endpoints import RELAYS
from app.errors import BackendError, Reason
from app.flow import ALONE_S
from app.patience import Until
from app.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.backend.base import Take
    from app.backend.http import Client, Reply
    from app.call import Ask, Native, Target
    from app.config import BackendConfig

PATHS = {"chat": "/chat/completions", "embeddings": "/embeddings"} | {
    name: relay.path for name, relay in RELAYS.items()
}
_ERROR_BODY_BYTES = 64 * 1024
_OK = 200


class OpenAIBackend:
    """A backend that speaks OpenAI's HTTP API, well or badly."""

    always_ready = True

    def __init__(
        self, config: BackendConfig, client: Client, max_answer_bytes: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self.config = config
        self._client = client
        self._max_answer_bytes = max_answer_bytes
        paths = PATHS | {path: path for path in (COUNT_PATH, *(wire.path for wire in WIRES.values()))}
        self._urls = {endpoint: endpoint_url(config.base_url, path) for endpoint, path in paths.items()}
        self._headers = CIMultiDict(
            {"content-type": "application/json", "accept": "application/json", "user-agent": f"sluice/{__version__}"}
        )
        if config.api_key:
            self._headers["authorization"] = f"Bearer {config.api_key}"
        self._headers.update(headers or {})
        self._stream_headers = self._headers.copy()
        self._stream_headers["accept"] = "text/event-stream"
        self._stream_headers["accept-encoding"] = "identity"

    async def prepare(self, target: Target, deadline: float, *, alone: bool) -> None:
        """Do nothing: it is there, or it is not."""

    async def whole(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> Whole:
        """Send a plain call and return the answer, within the backend's answer limit."""
        limit_s = self.config.limits.answer_s
        said = self._spoken(ask, target, body)
        try:
            with Until(asyncio.get_running_loop().time() + limit_s):
                if said is not None:
                    return await self._whole_spoken(said, trace)
                return await self._whole(ask.endpoint, adapt(body, target, self.config.dialect), trace)
        except TimeoutError as error:
            raise BackendError(
                Reason.SLOW_ANSWER, f"{target} gave no whole answer within {limit_s:g} s.", status=504
            ) from error

    def _spoken(self, ask: Ask, target: Target, body: dict[str, Any]) -> Spoken | None:
        """Return the call on another wire than the chat's, where that is how it is made."""
        native = ask.native
        if native is None or body is not native.chat or not has_wire(self.config, target.model, native.wire):
            return None
        return spoken(native, target)

    async def _whole_spoken(self, said: Spoken, trace: Trace) -> Whole:
        raw, answer = await self._answer(said.wire.path, said.body, trace, said.headers)
        try:
            body = said.wire.completion(answer) if said.wire.good(answer) else None
        except (AttributeError, KeyError, TypeError, ValueError):
            body = None
        if body is None:
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered 200 with something that is no answer.")
        return Whole(raw, body, native=answer) if said.relayed else Whole(orjson.dumps(body), body)

    async def count_tokens(self, native: Native, target: Target) -> int:
        """Ask how many tokens the input of a message has.

        Raises:
            BackendError: it does not say.
        """
        said = spoken(native, target)
        asked = {name: value for name, value in said.body.items() if name in COUNTED}
        _, told = await self._answer(COUNT_PATH, asked, Trace(), said.headers)
        if not isinstance(told.get("input_tokens"), int):
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered without a count.")
        count: int = told["input_tokens"]
        return count

    async def admin(self, path: str, body: bytes, trace: Trace) -> tuple[int, Mapping[str, str], bytes]:
        """Post to another endpoint of the same server, beside its base URL; return status, headers and body.

        Raises:
            BackendError: no connection, or it broke.
        """
        url = endpoint_url(self.config.base_url.removesuffix("/v1"), path)
        exchange = await self._client.post(url, self._headers, body, self.config.limits.connect_s, trace)
        try:
            return exchange.status, exchange.headers, await exchange.read(self._max_answer_bytes)
        finally:
            exchange.close()

    async def fetch(self, path: str, timeout_s: float) -> dict[str, Any]:
        """Get a JSON document from beside the base URL.

        Raises:
            BackendError: it cannot be had.
        """
        url = endpoint_url(self.config.base_url.removesuffix("/v1"), path)
        exchange = await self._client.get(url, self._headers, timeout_s)
        try:
            return self.decode(await exchange.read(self._max_answer_bytes))
        finally:
            exchange.close()

    async def _whole(self, endpoint: str, body: dict[str, Any], trace: Trace) -> Whole:
        raw, answer = await self._answer(endpoint, body, trace)
        if not good_answer(endpoint, answer):
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered 200 with something that is no answer.")
        return Whole(raw, answer)

    async def _answer(
        self, endpoint: str, body: dict[str, Any], trace: Trace, more: tuple[tuple[str, str], ...] = ()
    ) -> tuple[bytes, dict[str, Any]]:
        exchange = await self._post(endpoint, encoded(body), _with(self._headers, more), trace)
        try:
            trace.stage("first_token")
            raw = await exchange.read(self._max_answer_bytes)
        finally:
            exchange.close()
        trace.stage("answer")
        return raw, self.decode(raw)

    def decode(self, raw: bytes) -> dict[str, Any]:
        """Decode a plain answer.

        Raises:
            BackendError: it is an error, or no JSON object.
        """
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered 200 with something not JSON.") from error
        if wire_errors.is_error(body):
            raise self._scrub(wire_errors.from_body(self.config.name, body))
        if not isinstance(body, dict):
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered 200 with something not an object.")
        return body

    async def stream(self, ask: Ask, target: Target, body: dict[str, Any], trace: Trace) -> HttpEventStream:
        """Send a streamed call; the caller of this method limits the time to the first content."""
        said = self._spoken(ask, target, body)
        if said is not None:
            exchange = await self._begin(said.wire.path, said.body, _with(self._stream_headers, said.headers), trace)
            return SpokenStream(exchange, self, self._max_answer_bytes, said)
        body = adapt(body, target, self.config.dialect)
        exchange = await self._begin(ask.endpoint, body, self._stream_headers, trace)
        return HttpEventStream(exchange, self, self._max_answer_bytes)

    async def _begin(self, endpoint: str, body: dict[str, Any], headers: CIMultiDict[str], trace: Trace) -> Reply:
        """Send a call; return once a stream has begun."""
        exchange = await self._post(endpoint, encoded(body), headers, trace)
        kind = exchange.headers.get("content-type", "")
        if "json" in kind and "event-stream" not in kind:
            try:
                self.decode(await exchange.read(self._max_answer_bytes))
            finally:
                exchange.close()
            raise BackendError(Reason.MALFORMED, f"{self.config.name} answered a streamed call with a plain answer.")
        return exchange

    async def relay(self, ask: Ask, target: Target, trace: Trace) -> Reply:
        """Pass a call on as it is and return once the response's headers are there; its body is anything."""
        headers = self._stream_headers.copy()
        headers["accept"] = "*/*"
        if ask.form is not None:
            headers["content-type"] = ask.form.content_type
        return await self._post(ask.endpoint, passed_on(ask, target), headers, trace)

    async def _post(self, endpoint: str, raw: bytes, headers: CIMultiDict[str], trace: Trace) -> Reply:
        exchange = await self._client.post(self._urls[endpoint], headers, raw, self.config.limits.connect_s, trace)
        if exchange.status == _OK:
            return exchange
        try:
            told = await exchange.read(_ERROR_BODY_BYTES)
        except BackendError:
            told = b""
        finally:
            exchange.close()
        told = told.replace(self.config.api_key.encode() or b"\0", b"***")  # also where a cut would leave a part of it
        raise self._scrub(wire_errors.from_response(self.config.name, exchange.status, exchange.headers, told))

    def spoken_error(self, told: dict[str, Any], status: int) -> BackendError:
        """Return the error of an event on another wire."""
        return self._scrub(wire_errors.from_body(self.config.name, told, status))

    def event_error(self, chunk: dict[str, Any]) -> BackendError | None:
        """Return the error that an event of a stream is, or None."""
        told = chunk.get("error")
        if not told:
            groq = chunk.get("x_groq")
            told = groq.get("error") if isinstance(groq, dict) else None
        return self._scrub(wire_errors.from_body(self.config.name, {"error": told})) if told else None

    def _scrub(self, error: BackendError) -> BackendError:
        """Remove the key from what a backend says of it."""
        key = self.config.api_key
        if key:
            error.message = error.message.replace(key, "***")
            error.type = error.type.replace(key, "***")
            error.code = error.code and error.code.replace(key, "***")
            error.param = error.param and error.param.replace(key, "***")
        return error


def _not(_: Event) -> bool:
    return False


def _with(headers: CIMultiDict[str], more: tuple[tuple[str, str], ...]) -> CIMultiDict[str]:
    if not more:
        return headers
    united = headers.copy()
    united.update(more)
    return united


class HttpEventStream:
    """The events of one response."""

    def __init__(self, exchange: Reply, backend: OpenAIBackend, max_bytes: int) -> None:
        self._exchange = exchange
        self._left_bytes = max_bytes
        self._backend = backend
        self._decoder = SSEDecoder()
        self._mould = Mould()
        self._failure: BackendError | None = None
        self._take: Take = _not
        self._heard_s = 0.0
        self._ended = False
        self.whole = False
        self.malformed = 0
        self.waits = False

    @property
    def comment(self) -> bytes:
        """The newest comment of the stream, empty once an event came after it."""
        return self._decoder.comment

    async def batch(self) -> list[Event]:
        """Return every event that has arrived; an empty list at the end."""
        while not self._ended:
            if self._failure is not None:
                raise self._failure
            data = await self._exchange.some()
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                raise BackendError(Reason.TOO_LARGE, f"{self._backend.config.name} streams without end.")
            events = self._decoded(data)
            self._ended = self._ended or not data
            if events:
                return events
        if self._failure is not None:
            raise self._failure
        return []

    def _decoded(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete; no bytes: the end has come."""
        decoder = self._decoder
        if not data:
            return self._events(decoder.flush())
        one = self._mould.only(data) if decoder.between else None
        if one is None:
            return self._events(decoder.feed(data))
        decoder.comment = b""
        return [one]

    def _events(self, payloads: list[bytes]) -> list[Event]:
        """Return the events of what arrived; those that differ in their text alone are made one."""
        events: list[Event] = []
        for fits, group in groupby(payloads, self._mould.fits):
            # What does not fit may teach what does, so that its end is only known once it is parsed.
            events += self._as_one(list(group)) if fits else self._parsed(group)  # noqa: B031 - one of the two uses it
            if self._ended or self._failure is not None:
                break
        return events

    def _as_one(self, payloads: list[bytes]) -> list[Event]:
        one = self._mould.event(payloads)
        return self._parsed(payloads) if one is None else [one]

    def _parsed(self, payloads: Iterable[bytes]) -> list[Event]:
        events: list[Event] = []
        for data in payloads:
            if data == b"[DONE]":
                self.whole = self._ended = True
                break
            event = self._event(data)
            if self._failure is not None:
                break
            if event is not None:
                events.append(event)
        return events

    def _event(self, data: bytes) -> Event | None:
        """Decode one event; an error is kept and raised once the events before it are delivered."""
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.malformed += 1
            return None
        if b"\n" in data:  # several data lines; in JSON the line ends mean nothing
            data = data.replace(b"\n", b" ")
        event = Event(b"data: " + data + b"\n\n", chunk)
        if event.texts:
            self._mould.learn(data, event)
        else:
            if not good_chunk(chunk):
                self.malformed += 1
                return None
            if chunk.get("error") or "x_groq" in chunk:
                self._failure = self._backend.event_error(chunk)
        return event

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive while :meth:`batch` waits to ``take``, each alone."""
        self._take = take
        self._exchange.tap(self._straight)

    def _straight(self, data: bytes) -> bool:
        """Have bytes taken that are one plain text event; whatever else they are goes the long way."""
        now_s, before_s = asyncio.get_running_loop().time(), self._heard_s
        self._heard_s = now_s
        if now_s - before_s < ALONE_S or len(data) > self._left_bytes or not self._decoder.between:
            return False
        event = self._mould.only(data)
        if event is None or not self._take(event):
            return False
        self._left_bytes -= len(data)
        self._decoder.comment = b""
        return True

    def finish(self) -> None:
        """Give the connection back once the rest of a whole answer has come."""
        self._take = _not
        self._exchange.finish()

    def close(self) -> None:
        """Close the connection."""
        self._take = _not  # it refers to what refers to this: both are freed at once
        self._exchange.close()


class SpokenStream(HttpEventStream):
    """The events of a response on another wire, with the chat's chunks that they are."""

    def __init__(self, exchange: Reply, backend: OpenAIBackend, max_bytes: int, said: Spoken) -> None:
        super().__init__(exchange, backend, max_bytes)
        self._said = said
        self._chunks = said.chunks()

    def _events(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for data in payloads:
            if data == b"[DONE]":
                self.whole = self._ended = True
                break
            told = self._told(data)
            if self._failure is not None:
                break
            if told is not None:
                events.append(told)
            if self._chunks.whole:
                self.whole = self._ended = True
                break
        return events

    def _told(self, data: bytes) -> Event | None:
        """Decode one event; an error is kept and raised once the events before it are delivered."""
        try:
            event = orjson.loads(data)
            error = event.get("error") and event.get("type") is None and ({"error": event["error"]}, 502)
            error = error or self._said.wire.error(event)
            chunk = {} if error else self._chunks.take(event)
            if not good_chunk(chunk):
                raise ValueError("no chunk")  # noqa: TRY301 - counted below, like all that cannot be read
        except (AttributeError, KeyError, TypeError, ValueError):
            self.malformed += 1
            return None
        if error:
            self._failure = self._backend.spoken_error(*error)
            return None
        if self._said.relayed:
            return NativeEvent(chunk, event)
        return Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk) if chunk else None
