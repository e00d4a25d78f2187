"""Ollama's own endpoints beside the answers: which models are there, download one, load one.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict

from app.backend import wire_errors
from app.backend.http import endpoint_url
from app.errors import BackendError, Reason
from app.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.backend.http import Client, Reply

DEFAULT_CONTEXT = 4096
"""Tokens that an Ollama keeps of a prompt unless it was started, or asked natively, with more; the rest is cut off."""
_ANSWER_BYTES = 4 * 1024 * 1024
_PULL_SILENCE_S = 120.0
"""A download that reports nothing for so long is given up; it goes on where it stopped when asked for again."""
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_OK = 200


class OllamaApi:
    """One Ollama.

    Args:
        client: the HTTP client.
        root: its address, without ``/v1``.
        headers: sent with every request.
        name: what errors call it.
    """

    def __init__(self, client: Client, root: str, headers: Mapping[str, str], name: str) -> None:
        self._client, self._root, self._name = client, root.rstrip("/"), name
        self._headers = CIMultiDict({"content-type": "application/json", **headers})

    async def models(self, timeout_s: float = 5.0) -> frozenset[str]:
        """Return the names of the models that are there.

        Raises:
            BackendError: it does not answer, or not like an Ollama.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._client.get(endpoint_url(self._root, "/api/tags"), self._headers, timeout_s)
                told = await self._object(reply)
        except TimeoutError as error:
            raise BackendError(Reason.CONNECT, f"{self._name} did not list its models in time.") from error
        listed = told.get("models")
        if not isinstance(listed, list):
            raise BackendError(Reason.MALFORMED, f"{self._name} lists no models: it is no Ollama.")
        return frozenset(str(each.get("name")) for each in listed if isinstance(each, dict))

    async def pull(self, model: str, progress: Callable[[str], None]) -> None:
        """Download a model; ``progress`` is told e.g. ``41 %``.

        Raises:
            BackendError: NOT_READY, with what Ollama says and what to do.
        """
        reply = await self._post("/api/pull", {"model": model, "stream": True})
        lines = Lines()
        told: dict[str, Any] = {}
        try:
            if reply.status != _OK:
                told = await self._object(reply)
            while data := await self._piece(reply, model):
                for line in lines.feed(data):
                    told = line
                    if line.get("error"):
                        break
                    if isinstance(line.get("total"), int) and line["total"] > 0:
                        progress(f"{100 * int(line.get('completed') or 0) // line['total']} %")
        finally:
            reply.close()
        if told.get("error") or told.get("status") != "success":
            raise self._not_pulled(model, str(told.get("error") or "the download ended early"))

    async def _piece(self, reply: Reply, model: str) -> bytes:
        try:
            async with asyncio.timeout(_PULL_SILENCE_S):
                return await reply.some()
        except TimeoutError as error:
            raise self._not_pulled(model, f"no progress for {_PULL_SILENCE_S:g} s") from error
        except BackendError as error:
            raise self._not_pulled(model, error.message) from error

    def _not_pulled(self, model: str, why: str) -> BackendError:
        message = (
            f"{self._name} could not download {model}: {why[:300]}. Check the model's name on ollama.com/library, the "
            "disk's size and the network."
        )
        return BackendError(Reason.NOT_READY, message, status=503, code="pull_failed")

    async def load(self, model: str, keep_alive: str, limit_s: float) -> None:
        """Load a model into memory, so that the first answer does not have to wait for it.

        Raises:
            BackendError: MODEL_MISSING, or NOT_READY where it does not fit or takes too long.
        """
        try:
            async with asyncio.timeout(limit_s):
                body = {"model": model, "keep_alive": duration(keep_alive), "stream": False}
                await self._object(await self._post("/api/generate", body))
        except TimeoutError as error:
            message = f"{self._name} has not loaded {model} within {limit_s:g} s (OLLAMA_LOAD_TIMEOUT_S)."
            raise BackendError(Reason.NOT_READY, message, status=503, code="load_failed") from error
        except BackendError as error:
            if error.reason is Reason.MODEL_MISSING:
                error.message += f" Download it with: ollama pull {model}"
            raise

    async def _post(self, path: str, body: dict[str, Any]) -> Reply:
        url = endpoint_url(self._root, path)
        return await self._client.post(url, self._headers, orjson.dumps(body), 5.0, Trace())

    async def _object(self, reply: Reply) -> dict[str, Any]:
        try:
            raw = await reply.read(_ANSWER_BYTES)
        finally:
            reply.close()
        if reply.status != _OK:
            raise wire_errors.from_response(self._name, reply.status, reply.headers, raw)
        try:
            told = orjson.loads(raw)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict) or told.get("error"):
            raise wire_errors.from_body(self._name, told if isinstance(told, dict) else {})
        return told


class Lines:
    """A sans-I/O decoder of JSON objects, one a line (NDJSON)."""

    def __init__(self, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._rest = b""
        self._max = max_bytes
        self._skipped = 0

    def skipped(self) -> int:
        """Return how many lines were no objects since this was last asked."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return every object that these bytes complete.

        Raises:
            BackendError: a line grows beyond the bound.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._max:
            raise BackendError(Reason.TOO_LARGE, f"The backend sent a line of more than {self._max} bytes.")
        return [found for line in lines if (found := self._read(line)) is not None]

    def flush(self) -> list[dict[str, Any]]:
        """Return the object of a last line without an end."""
        line, self._rest = self._rest, b""
        found = self._read(line)
        return [] if found is None else [found]

    def _read(self, line: bytes) -> dict[str, Any] | None:
        if not line.strip():
            return None
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            self._skipped += 1
            return None
        return found


def duration(text: str) -> str | int:
    """Return ``keep_alive`` as Ollama reads it: a bare number is seconds there only as a JSON number."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def seconds(text: str) -> float:
    """Return ``keep_alive`` in seconds; a negative one is for ever."""
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    value = float(found[1]) * _UNITS_S[found[2] or ""] if found else 300.0
    return value if value >= 0 else float("inf")
