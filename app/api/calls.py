"""The endpoints that cost money: one raw ASGI callable each, under FastAPI's router."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from app.admission import Turn
from app.api import auth, respond
from app.api.after import show
from app.api.dress import Dress
from app.api.frames import Framer, comment, event
from app.api.parse import ClientGoneError, decode, make_ask, read_body
from app.api.record import make_record, served_usage
from app.api.watch import ClientWatch
from app.batch.local import BACKGROUND
from app.dispatch import Answer
from app.errors import CallerError, SluiceError
from app.flow import ALONE_S
from app.http1.exchange import caller_of
from app.ledger.bill import Bill, make_bill
from app.telemetry import w3c
from app.trace import Trace

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from app.api.dress import Frames
    from app.api.parse import Receive
    from app.api.respond import HeaderList, Send
    from app.backend.base import Event, Take
    from app.batch.local import Owner
    from app.call import Ask, Target
    from app.flow import Flow
    from app.gateway import Gateway
    from app.recall import AnyAnswer, Streamed
    from app.settings import Settings

T = TypeVar("T")
Serve = Callable[["Ask", "Settings", "Gateway", Trace], Awaitable[T]]
_FEW = 8
"""Events that came together; where streams are faster than they are relayed, it is dozens."""
_PRICES_S = 2.0
"""How long an answer waits for the price list in a gateway's first second; later than that it goes without its cost."""
_LEAVING = "Sluice is shutting down, and this call did not end in time. Try again."
log = logging.getLogger("sluice")


def _straight(framer: Framer, writer: respond.SSEWriter, flow: Flow) -> Take:
    """Return what sends a plain text event as it came, where nothing has to be waited for."""

    def take(event: Event) -> bool:
        if not framer.needs_nothing(event) or not writer.write_now(event.raw):
            return False
        flow.relayed(writer.last_s, alone=True)
        return True

    return take


def _are_few(events: list[Event]) -> bool:
    """Tell whether so few came together as where events come one by one, and the gateway is behind for a moment."""
    return sum(len(each.texts) or 1 for each in events) <= _FEW


class CallEndpoint:
    """One endpoint: from the socket to the record, in the dress that its callers know."""

    def __init__(self, gateway: Gateway, dress: type[Dress] = Dress, kind: type[Call] | None = None) -> None:
        self._gateway = gateway
        self._dress = dress
        self._kind = kind or Call

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one call; never raises but for a bug."""
        gateway = self._gateway
        gateway.inflight += 1
        try:
            await self._kind(gateway, self._dress, scope, send).serve(receive)
        finally:
            gateway.inflight -= 1


class Call:
    """One call's way through the edge."""

    def __init__(self, gateway: Gateway, dress: type[Dress], scope: MutableMapping[str, Any], send: Send) -> None:
        self._gateway = gateway
        self._settings: Settings = gateway.live.current
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id: str = scope["state"]["request_id"]
        self._owner: Owner | None = scope["state"].get(BACKGROUND)
        self._dress = dress(self._settings, gateway, self._request_id, self._headers)
        self._send = send
        self._client = caller_of(scope)
        self._trace = Trace(context=w3c.begin(self._headers, gateway.samples))
        self._turn = Turn(gateway.limits)
        self._ask: Ask | None = None
        self._answer: AnyAnswer | None = None
        self._writer: respond.SSEWriter | None = None
        self._error: SluiceError | None = None
        self._bill: Bill | None = None
        self._status = 200
        self._outcome = "ok"

    async def serve(self, receive: Receive) -> None:
        """Serve it; never raises but for a bug."""
        try:
            await self._give_way()
            await self._serve(receive)
        except ClientGoneError:
            self._outcome = "abandoned"
        finally:
            self._turn.end(self._trace)
            await self._keep_record()

    async def _serve(self, receive: Receive) -> None:
        try:
            self._ask = ask = await self._parse(receive)
            await self._turn.begin(ask, self._settings)
        except SluiceError as error:
            await self._refuse(error)
            return
        async with ClientWatch(receive, self._client) as watch:
            await self._serve_until_the_end(ask, watch)
            watch.answered()
        if watch.gone:
            self._outcome = "abandoned"

    async def _serve_until_the_end(self, ask: Ask, watch: ClientWatch) -> None:
        """Serve; where the server ends before the call does, say so in OpenAI's shape."""
        try:
            await self._answer_ask(ask)
        except asyncio.CancelledError:
            if watch.gone or not self._gateway.draining:
                raise
            error = SluiceError(_LEAVING, status=503, code="shutting_down", fault="sluice_shutdown")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):  # who reads nothing is not waited for
                    await self._break(error)

    async def _answer_ask(self, ask: Ask) -> None:
        await (self._stream(ask) if ask.stream else self._plain(ask))

    async def _parse(self, receive: Receive) -> Ask:
        trace, settings = self._trace, self._settings
        tenant, key = await self._caller()
        trace.stage("auth")
        raw = await read_body(receive, settings.max_body_mb)
        trace.stage("receive")
        ask = await self._make_ask(raw, tenant)
        trace.stage("parse")
        ask = ask if self._owner is None else replace(ask, background=True)
        return ask if key is None else replace(ask, key=key)

    async def _caller(self) -> auth.Caller:
        """Return who is calling, or on whose behalf a batch calls."""
        keys, owner = self._gateway.keys, self._owner
        if owner is None:
            return await auth.authenticate(self._headers, self._settings, keys)
        return auth.Caller(owner.tenant, None if owner.key_id is None else await auth.still_good(owner.key_id, keys))

    async def _make_ask(self, raw: bytes, tenant: str) -> Ask:
        dress = self._dress
        body = await dress.chat(decode(raw), tenant)
        ask = make_ask(dress.kind, body, self._headers, tenant, self._settings, self._request_id, dress.native)
        if ask.stream and ask.endpoint != "chat":
            raise CallerError("This endpoint does not stream.", param="stream", code="invalid_value")
        return ask

    # -- plain ---------------------------------------------------------------------------------------------------------

    async def _plain(self, ask: Ask) -> None:
        self._answer = answer = await self._run(ask, self._dress.run)
        if isinstance(answer, Answer):
            await self._send_whole(ask, answer)

    async def _run(self, ask: Ask, how: Serve[T]) -> T | None:
        """Return the answer; None where an error was told instead."""
        try:
            return await how(ask, self._settings, self._gateway, self._trace)
        except SluiceError as error:
            await self._refuse(error)
        except Exception:
            log.exception("bug in call %s", self._request_id)
            await self._refuse(SluiceError(respond.INTERNAL, code="internal_error"))
        return None

    async def _send_whole(self, ask: Ask, answer: Answer) -> None:
        await self._price()
        try:
            body = self._plain_body(ask, answer)
        except SluiceError as error:
            await self._refuse(error)
            return
        if self._dress.keeps:
            await self._dress.keep()
        self._trace.stage("respond")
        await respond.send_json(self._send, 200, body, self._call_headers(answer.target))

    def _plain_body(self, ask: Ask, answer: Answer) -> bytes:
        if not self._wants_performance(ask):
            return self._dress.plain(answer, None)
        self._trace.stage("respond")
        return self._dress.plain(answer, respond.performance(self._trace, answer.target, self._bill))

    def _wants_performance(self, ask: Ask) -> bool:
        return ask.hints.performance or self._settings.performance_in_body

    # -- streams -------------------------------------------------------------------------------------------------------

    async def _stream(self, ask: Ask) -> None:
        keep_alive = self._dress.keep_alive
        self._writer = writer = respond.SSEWriter(self._send, self._stream_headers, keep_alive, caller=self._client)
        try:
            await self._relay(ask, writer)
        except SluiceError as error:
            await self._break(error)
        except Exception:
            log.exception("bug in call %s", self._request_id)
            await self._break(SluiceError(respond.INTERNAL, code="internal_error"))
        finally:
            writer.close()

    async def _relay(self, ask: Ask, writer: respond.SSEWriter) -> None:
        answer = await self._dress.run(ask, self._settings, self._gateway, self._trace, self._tell)
        if isinstance(answer, Answer):
            raise TypeError("a streamed call got a plain answer")
        self._answer = answer
        shows = self._wants_performance(ask)
        framer = self._dress.framer(answer.target.model, wants_usage=ask.wants_usage, shows=shows)
        try:
            await self._pass_on(answer, framer, writer)
        except SluiceError:
            if rest := framer.rest():
                await writer.write(rest)
            raise
        finally:
            answer.close()
        self._trace.stage("stream")
        if shows:
            await self._price()
        told = respond.performance(self._trace, answer.target, self._bill) if shows else None
        rest = framer.end(answer.said.usage(self._prompt_tokens()), told)
        if self._dress.keeps:
            await self._dress.keep()
        await writer.finish(rest)

    async def _pass_on(self, answer: Streamed, framer: Frames, writer: respond.SSEWriter) -> None:
        flow = self._gateway.flow
        if isinstance(framer, Framer):
            answer.pass_on(_straight(framer, writer, flow))
        while events := await answer.batch():
            data = framer.frames(events)
            if data:
                alone = writer.started and _are_few(events) and writer.silent_s() >= ALONE_S
                await writer.write(data)
                flow.relayed(writer.last_s, alone=alone)

    async def _tell(self, chunk: dict[str, Any]) -> None:
        """Let the caller see the progress of a task or a pipeline: as a comment, or as an event where it asked."""
        if self._writer is not None and self._ask is not None:
            events = self._ask.hints.progress and self._dress.endpoint == "chat"
            await self._writer.write(event(chunk) if events else comment(chunk["sluice"]))

    def _prompt_tokens(self) -> int:
        """Return the estimate of the prompt's tokens."""
        return self._trace.prompt_estimate()

    async def _break(self, error: SluiceError) -> None:
        """Tell an error: as a response while nothing is out, else as an event."""
        writer = self._writer
        if writer is None or not writer.started:
            if writer is not None:
                writer.close()
            await self._refuse(error)
            return
        self._error, self._outcome = error, "cut"
        await writer.finish(self._dress.broken(error))

    def _stream_headers(self) -> HeaderList:
        return self._call_headers(self._answer.target if self._answer is not None else None)

    # -- all -----------------------------------------------------------------------------------------------------------

    def _call_headers(self, target: Target | None) -> HeaderList:
        quotas = [header for quota in self._turn.quotas for header in quota.headers()]
        return [*self._dress.headers(), *quotas, *respond.call_headers(self._trace, target, self._bill)]

    async def _refuse(self, error: SluiceError) -> None:
        self._error, self._outcome, self._status = error, "error", error.status
        self._trace.stage("respond")
        headers = [*respond.error_headers(error), *self._call_headers(None)]
        await respond.send_json(self._send, error.status, respond.dumps(self._dress.error(error)), headers)

    async def _price(self) -> None:
        """Reckon what the call has cost so far."""
        loaded = self._gateway.prices.loaded
        if not loaded.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loaded.wait(), _PRICES_S)
        if loaded.is_set():
            self._bill = self._reckoned()

    def _reckoned(self) -> Bill:
        baseline = self._settings.baseline if self._ask is not None and self._ask.endpoint == "chat" else None
        return make_bill(self._trace, served_usage(self._trace, self._answer), self._gateway.prices, baseline)

    async def _give_way(self) -> None:
        if await self._gateway.flow.give_way(later=self._owner is not None):
            self._trace.stage("turn")

    async def _keep_record(self) -> None:
        self._trace.stage("stream" if self._outcome in {"abandoned", "cut"} else "respond")
        try:
            if not self._gateway.draining:  # else what keeps records may be gone before
                await self._gateway.flow.give_way(later=True)
        finally:
            self._record()

    def _record(self) -> None:
        """Build the Record and feed the hooks; in a gateway's first second, once there are prices."""
        if self._gateway.prices.loaded.is_set():
            self._feed()
            return
        late = asyncio.create_task(self._feed_later())
        self._gateway.late.add(late)
        late.add_done_callback(self._gateway.late.discard)

    async def _feed_later(self) -> None:
        await self._gateway.prices.loaded.wait()
        self._feed()

    def _feed(self) -> None:
        """Feed the hooks; one that fails costs its own, not the call."""
        record = make_record(
            self._trace,
            self._ask,
            self._answer,
            endpoint=self._dress.endpoint,
            request_id=self._request_id,
            outcome=self._outcome,
            status=self._status,
            error=self._error,
            bill=self._bill or self._reckoned(),
            keeps_content=self._settings.log_content,
        )
        for hook in self._gateway.hooks:
            try:
                hook(record)
            except Exception:
                log.exception("a hook failed on the record of %s", record.request_id)
        if self._ask is not None and self._ask.endpoint == "chat" and self._outcome == "ok":
            show(self._gateway, self._ask, record, self._answer, self._trace)
