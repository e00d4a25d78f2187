"""Answers to browsers that ask whether a page of another origin may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from app.api import errors
from app.errors import CallerError

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.responses import Response

_OK = 200


class Cors(CORSMiddleware):
    """Starlette's cross-origin answers, the refusals in OpenAI's shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks whether it may call."""
        found = super().preflight_response(request_headers)
        if found.status_code == _OK:
            return found
        told = bytes(found.body).decode()
        return errors.response(CallerError(f"{told}. See CORS_ORIGINS.", code="cors_refused", fault="policy_denied"))
