"""The endpoints whose calls are passed on as they are: moderations, audio and images; answers of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app import form
from app.api.calls import Call
from app.api.dress import Dress
from app.api.frames import event
from app.api.parse import decode, make_ask
from app.backend.base import Whole
from app.dispatch import Answer
from app.endpoints import RELAYS
from app.errors import BackendError
from app.pipeline import run_relay

if TYPE_CHECKING:
    from app.call import Ask
    from app.relay import RelayAnswer

_SSE = "text/event-stream"


class Relayed(Dress):
    """No shape of its own: the backend's bytes."""

    def plain(self, answer: Answer, performance: dict[str, Any] | None) -> bytes:
        """Return a whole answer's body."""
        if performance is None:
            return answer.whole.raw
        return orjson.dumps({**answer.whole.body, "performance": performance})


def dress_of(name: str) -> type[Relayed]:
    """Return the dress of one of the endpoints."""
    return type(name, (Relayed,), {"endpoint": name, "kind": name})


class RelayCall(Call):
    """One call's way through the edge; see Call."""

    async def _make_ask(self, raw: bytes, tenant: str) -> Ask:
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        parsed = None
        endpoint = self._dress.kind
        if RELAYS[endpoint].form and not content_type.startswith("application/json"):
            parsed = form.parse(raw, content_type)
            body = parsed.fields | dict.fromkeys(parsed.files, True)
        else:
            body = decode(raw)
        return make_ask(endpoint, body, self._headers, tenant, self._settings, self._request_id, form=parsed)

    async def _answer_ask(self, ask: Ask) -> None:
        """Answer; whether as a stream is the backend's decision."""
        answer = await self._run(ask, run_relay)
        if isinstance(answer, Answer):
            self._answer = answer
            await self._send_whole(ask, answer)
        elif answer is not None:
            self._answer = Answer(answer.target, Whole(b"", {}))
            await self._send_pieces(answer)

    async def _send_pieces(self, answer: RelayAnswer) -> None:
        """Send an answer as it comes: no faster than the caller reads, and never more in memory than one piece."""
        headers = [(b"content-type", answer.content_type.encode("latin-1", "replace"))]
        headers += self._call_headers(answer.target)
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            while data := await answer.some():
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._trace.stage("stream")
            await self._send({"type": "http.response.body", "body": b""})
        except BackendError as error:
            self._error, self._outcome = error, "cut"
            if answer.content_type.startswith(_SSE):
                await self._send({"type": "http.response.body", "body": event(error.body())})
            # Else it is left without its end: the server then breaks the connection, which is all that can be said.
        finally:
            answer.close()
