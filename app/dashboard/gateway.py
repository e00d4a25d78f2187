"""The gateway as the dashboard sees it: over HTTP only, with the operator's keys, and what went wrong in words."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.dashboard.config import Config

_READ_S = 10.0
_FRESH_S = 0.9
"""Several open pages cause one request: what is younger than this is not asked for again."""
_REST = 9
"""What the ledger takes long to add up is asked for less often: at most a tenth of the gateway's time goes there."""
_OF_LEDGER = ("/admin/calls", "/admin/keys", "/admin/parity", "/admin/traffic", "/v1/savings")
"""What else takes long only waits, say for an engine that starts: and then the next answer is worth having."""
_FOR_BOTH = "/v1/savings"
"""Tells an admin everybody's figures, and a caller its own."""
_KEPT = 200
"""Answers of so many addresses are remembered."""


class TroubleError(Exception):
    """Something was not done; the message says why, ``remedy`` what to do, and ``status`` is HTTP's or 0."""

    def __init__(self, message: str, remedy: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.status = status


@dataclass(frozen=True, slots=True)
class Told:
    """The newest answer of an address.

    Attributes:
        value: the last one that came, or None where none ever did.
        trouble: why the newest request brought none.
    """

    value: Any = None
    trouble: TroubleError | None = None


class Gateway:
    """Asks the gateway, and remembers what it said last.

    Args:
        config: read anew at each request, so that a changed key is followed.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._told: dict[str, Told] = {}
        self._rests: dict[str, float] = {}
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(_READ_S, connect=3.0), trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def ask(self, path: str) -> Told:
        """Return what is at a path, newly asked for unless that was just done. Never raises."""
        began = time.monotonic()
        known = self._told.get(path, Told())
        if began < self._rests.get(path, 0.0):
            return known
        self._rests[path] = began + _FRESH_S
        try:
            told = Told(await self.get(path))
        except TroubleError as trouble:
            told = replace(known, trouble=trouble)
        ended = time.monotonic()
        rest = _REST if path.startswith(_OF_LEDGER) else 0
        self._rests[path] = ended + max(_FRESH_S, rest * (ended - began))
        self._told[path] = told
        if len(self._told) > _KEPT:
            del self._told[next(iter(self._told))]
        return told

    def forget(self) -> None:
        """Have everything asked for anew: something was just changed."""
        self._rests.clear()

    async def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            TroubleError: there is none.
        """
        return await self._json("GET", path)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = _READ_S,
    ) -> Any:
        """Change something; return what the gateway says of it.

        Raises:
            TroubleError: it was not done.
        """
        raw = orjson.dumps(body) if body is not None else None
        told = await self._json(method, path, content=raw, headers=headers or {}, timeout=timeout_s)
        self.forget()
        return told

    async def _json(self, method: str, path: str, *, headers: dict[str, str] | None = None, **request: Any) -> Any:
        with self._reached():
            answer = await self._http.request(
                method, self._url(path), headers=self._headers(path) | (headers or {}), **request
            )
        if answer.is_error and path != "/health/ready":
            raise _refused(answer.status_code, answer.content)
        try:
            return orjson.loads(answer.content) if answer.content else None
        except orjson.JSONDecodeError:
            raise TroubleError(
                f"{self._config.gateway_url} answers, but not as Sluice does.", "Check DASHBOARD_GATEWAY_URL."
            ) from None

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: Any, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """Send a call whose answer is read as it comes.

        Raises:
            TroubleError: it was refused, or the gateway is gone.
        """
        headers = self._headers(path) | headers
        with self._reached():
            async with self._http.stream(
                "POST", self._url(path), content=orjson.dumps(body), headers=headers, timeout=None
            ) as answer:
                if answer.is_error:
                    raise _refused(answer.status_code, await answer.aread())
                yield answer

    def _url(self, path: str) -> str:
        return f"{self._config.gateway_url}{path}"

    def _headers(self, path: str) -> dict[str, str]:
        as_caller = path.startswith("/v1/") and not path.startswith(_FOR_BOTH)
        key = self._config.caller_key if as_caller else self._config.admin_key
        return {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    @contextlib.contextmanager
    def _reached(self) -> Any:
        try:
            yield
        except httpx.TransportError as error:
            why = " in time" if isinstance(error, httpx.TimeoutException) else ""
            raise TroubleError(
                f"The gateway at {self._config.gateway_url} does not answer{why}.",
                "Start it with “sluice serve”, or set DASHBOARD_GATEWAY_URL.",
            ) from error


_REMEDIES = {
    "invalid_admin_key": "The gateway has another ADMIN_KEY than the dashboard: give both the same.",
    "admin_forbidden": "Set ADMIN_KEY for the gateway and for the dashboard.",
    "invalid_api_key": "Set DASHBOARD_API_KEY to one of the gateway's keys.",
    "no_database": "GET /health/ready says what is wrong with the database.",
    "database_unavailable": "GET /health/ready says what is wrong with the database.",
    "unknown_url": "This gateway does not have that endpoint: give both the same version.",
}


def _refused(status: int, raw: bytes) -> TroubleError:
    """Make what the gateway says of an error a trouble."""
    try:
        error = orjson.loads(raw)["error"]
        message, code = str(error["message"]), str(error.get("code"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message, code = f"The gateway answered {status}.", ""
    return TroubleError(message, _REMEDIES.get(code, ""), status)
