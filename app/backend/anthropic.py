"""Anthropic's own wire: for chats by translation, for its own callers with their own words.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from app.backend.native import WIRES, Spoken
from app.backend.openai_http import OpenAIBackend
from app.config import AnthropicOptions
from app.errors import BackendError, Reason
from app.wire.chat_messages import NO_SAMPLING, SAMPLING, to_messages, trimmed

if TYPE_CHECKING:
    from app.backend.http import Client
    from app.call import Ask, Target
    from app.config import BackendConfig

_VERSION = "anthropic-version"
_BROKE = re.compile(r"credit balance|billing", re.IGNORECASE)
"""An account without money is told as a 400."""


class AnthropicBackend(OpenAIBackend):
    """A backend that speaks ``/v1/messages``."""

    def __init__(self, config: BackendConfig, client: Client, max_answer_bytes: int) -> None:
        self._options = config.anthropic or AnthropicOptions()
        super().__init__(
            config, client, max_answer_bytes, {"x-api-key": config.api_key, _VERSION: self._options.version}
        )
        for headers in (self._headers, self._stream_headers):
            headers.popall("authorization", None)

    def _spoken(self, ask: Ask, target: Target, body: dict[str, Any]) -> Spoken | None:
        own = super()._spoken(ask, target, body)
        if own is not None:
            return _of_its_version(own, self._options.version)
        if ask.endpoint != "chat":
            raise BackendError(
                Reason.MODEL_MISSING, f"{self.config.name} has no {ask.endpoint}.", status=404, code="model_not_found"
            )
        try:
            made = to_messages(body, target.model, version=self._options.version, max_tokens=self._options.max_tokens)
        except (AttributeError, KeyError, TypeError) as error:
            told = f"The request cannot be told to {self.config.name}: a part of it is not of the type it should be."
            raise BackendError(
                Reason.INVALID, told, status=400, type="invalid_request_error", code="invalid_value"
            ) from error
        return Spoken(WIRES["messages"], made, relayed=False, lost=trimmed(body))

    def _scrub(self, error: BackendError) -> BackendError:
        error = super()._scrub(error)
        if error.reason is Reason.INVALID and _BROKE.search(error.message):
            error.reason, error.fault = Reason.DEAD_KEY, f"backend_{Reason.DEAD_KEY}"
        return error


def _of_its_version(said: Spoken, default: str) -> Spoken:
    """Leave out what the wire's version refuses: that which the caller named, or the configuration's."""
    version = dict(said.headers).get(_VERSION, default)
    if version >= NO_SAMPLING:
        for name in SAMPLING & said.body.keys():
            del said.body[name]
    return said
