"""Every error of the framework in OpenAI's shape: unknown routes, wrong methods, bad parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.api import respond
from app.errors import CallerError, SluiceError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_NOT_FOUND = 404


def install(app: FastAPI) -> None:
    """Answer every exception of the app in OpenAI's shape."""
    app.add_exception_handler(SluiceError, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)


def response(error: SluiceError) -> Response:
    """Return an error as a response."""
    headers = {name.decode(): value.decode("latin-1") for name, value in respond.error_headers(error)}
    return Response(respond.dumps(error.body()), error.status, headers, media_type="application/json")


async def _known(_: Request, error: Exception) -> Response:
    return response(error if isinstance(error, SluiceError) else SluiceError(respond.INTERNAL))


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else _NOT_FOUND
    url = f"{request.method} {request.url.path}"
    told = (
        f"Unknown request URL: {url}. GET / lists what there is."
        if status == _NOT_FOUND
        else f"{url}: {getattr(error, 'detail', 'not possible')}."
    )
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(status)
    found = response(CallerError(told, status=status, code=code, fault="caller_unknown_url"))
    found.headers.update(getattr(error, "headers", None) or {})
    return found


async def _validation(_: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "is invalid"}
    path = ".".join(str(part) for part in first["loc"] if part != "body")
    return response(CallerError(f"Invalid value: '{path}': {first['msg']}.", param=path or None, code="invalid_value"))
