"""Embeddings as the caller asked for them: numbers or base64, with every key that OpenAI's schema requires. Pure."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

from app.errors import BackendError, Reason


def finished(answer: dict[str, Any], model: str, form: str | None) -> dict[str, Any]:
    """Return the answer in the form asked for, ``float`` or ``base64``; the same object where nothing changes.

    Raises:
        BackendError: MALFORMED, a vector is neither.
    """
    data = answer["data"]
    rows = [_row(index, row, as_base64=form == "base64") for index, row in enumerate(data)]
    missing: dict[str, Any] = {}
    if any(new is not old for new, old in zip(rows, data, strict=True)):
        missing["data"] = rows
    if answer.get("object") != "list":
        missing["object"] = "list"
    if not answer.get("model"):
        missing["model"] = model
    usage = answer.get("usage")
    if not isinstance(usage, dict) or "prompt_tokens" not in usage or "total_tokens" not in usage:
        missing["usage"] = {"prompt_tokens": 0, "total_tokens": 0} | (usage if isinstance(usage, dict) else {})
    return {**answer, **missing} if missing else answer


def _row(index: int, row: Any, *, as_base64: bool) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise _malformed()
    vector: Any = row.get("embedding")
    coded = isinstance(vector, str)
    if not coded and not isinstance(vector, list):
        raise _malformed()
    if coded == as_base64 and row.get("object") == "embedding" and row.get("index") is not None:
        return row
    wanted = vector if coded == as_base64 else (_packed(vector) if as_base64 else _unpacked(vector))
    place = row.get("index")
    return {**row, "object": "embedding", "index": index if place is None else place, "embedding": wanted}


def _packed(vector: list[Any]) -> str:
    """Return numbers as little-endian 32-bit floats in base64, which is what OpenAI sends."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError) as error:
        raise _malformed() from error


def _unpacked(text: str) -> list[float]:
    try:
        raw = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    except (binascii.Error, ValueError, struct.error) as error:
        raise _malformed() from error


def _malformed() -> BackendError:
    return BackendError(Reason.MALFORMED, "The backend answered with an embedding that is no vector.")
