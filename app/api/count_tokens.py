"""``/v1/messages/count_tokens``: counted by a target that has the wire, else estimated, which the answer then says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api import auth, respond
from app.api.messages import Messages
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.api.parse import decode, make_ask, read_body
from app.backend.catalog import Catalog, has_wire
from app.backend.openai_http import OpenAIBackend
from app.errors import BackendError, CallerError, SluiceError
from app.pipeline import decide
from app.route import known
from app.route.fit import tokens_of_tools
from app.trace import Trace

if TYPE_CHECKING:
    from app.call import Ask
    from app.gateway import Gateway
    from app.settings import Settings

counting = APIRouter()
_COUNT_S = 10.0
"""A client waits for this before it sends the message itself."""


@counting.post("/messages/count_tokens")
async def count_tokens(request: Request, gateway: Here) -> Response:
    """Say how many tokens a message's input has."""
    settings, headers = gateway.live.current, dict(request.scope["headers"])
    dress = Messages(settings, gateway, request.scope["state"]["request_id"], headers)
    try:
        tenant, _ = await auth.authenticate(headers, settings, gateway.keys)
        body = decode(await read_body(request.receive, settings.max_body_mb))
        chat = await dress.chat({"max_tokens": 1, **body}, tenant)
        ask = make_ask("chat", chat, headers, tenant, settings, dress.request_id, dress.native)
        told, status, more = await _counted(ask, settings, gateway), 200, []
    except SluiceError as error:
        told, status, more = dress.error(error), error.status, respond.error_headers(error)
    sent = {name.decode(): value.decode("latin-1") for name, value in [*dress.headers(), *more]}
    return Response(respond.dumps(told), status, sent, media_type="application/json")


async def _counted(ask: Ask, settings: Settings, gateway: Gateway) -> dict[str, Any]:
    verdict, plan = decide(ask, settings, Catalog(settings, known.context_window), Trace())
    for target in plan.candidates:
        config = settings.backend_configs[target.backend]
        backend = gateway.backends.of(config) if has_wire(config, target.model, "messages") else None
        if ask.native is None or not isinstance(backend, OpenAIBackend):
            continue
        try:
            async with asyncio.timeout(_COUNT_S):
                return {"input_tokens": await backend.count_tokens(ask.native, target)}
        except (BackendError, TimeoutError) as error:
            if isinstance(error, BackendError) and error.status == CallerError.status:
                raise
    return {"input_tokens": (verdict.prompt_tokens or 0) + tokens_of_tools(ask.body), "estimated": True}
