"""Callers' keys over HTTP: ``/admin/keys``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request

from app.api.admin import admit
from app.api.check import bad
from app.api.ops import Here  # noqa: TC001 - FastAPI reads it
from app.api.parse import decode, read_body
from app.errors import CallerError, SluiceError
from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.gateway import Gateway
    from app.ledger.db import Database
    from app.ledger.key_store import KeyStore

admin_keys = APIRouter(prefix="/admin/keys", dependencies=[Depends(admit)])
_MOST_GRACE_S = 30 * 86_400


@contextlib.contextmanager
def _store(gateway: Gateway) -> Iterator[KeyStore]:
    """Give the store of keys.

    Raises:
        CallerError: 404, there is none.
        SluiceError: 503, it is away.
    """
    if gateway.database is None:
        raise CallerError("Keys cannot be managed: DATABASE_URL is off.", status=404, code="no_database")
    try:
        yield _opened(gateway.database)
    except DatabaseUnavailableError as error:
        message = f"Keys cannot be managed: {error}."
        raise SluiceError(message, status=503, code="no_database", fault="sluice_keys_unavailable") from error


def _opened(database: Database) -> KeyStore:
    if database.trouble is not None:
        raise DatabaseUnavailableError(database.trouble)
    from app.ledger.key_store import KeyStore

    return KeyStore(database)


@admin_keys.get("")
async def list_keys(gateway: Here) -> dict[str, Any]:
    """Return every key that was ever made, with its limits and what was spent; never the key itself."""
    from app.ledger.key_terms import shown

    with _store(gateway) as store:
        return {"keys": [shown(each) for each in await store.all()]}


@admin_keys.post("")
async def create_key(request: Request, gateway: Here) -> dict[str, Any]:
    """Make a key and return it: it is shown this once."""
    from app.ledger.key_terms import read_new_key, shown

    wanted = read_new_key(decode(await read_body(request.receive, gateway.live.current.max_body_mb)))
    with _store(gateway) as store:
        key, stored = await store.create(wanted)
    await _follow(gateway)
    return shown(stored) | {"key": key}


@admin_keys.post("/{name:path}/revoke")
async def revoke_key(name: str, gateway: Here) -> dict[str, Any]:
    """Take a key out of use for good, by its name or id; every worker refuses it within a second."""
    from app.ledger.key_terms import shown

    with _store(gateway) as store:
        stored = await store.revoke(name)
    await _follow(gateway)
    return shown(stored)


@admin_keys.post("/{name:path}/rotate")
async def rotate_key(name: str, request: Request, gateway: Here) -> dict[str, Any]:
    """Replace a key and return the new one, shown this once; ``{"grace_s": 3600}`` keeps the old one good so long."""
    from app.ledger.key_terms import shown

    raw = await read_body(request.receive, gateway.live.current.max_body_mb)
    grace_s = decode(raw).get("grace_s", 0) if raw.strip() else 0
    if isinstance(grace_s, bool) or not isinstance(grace_s, int | float) or not 0 <= grace_s <= _MOST_GRACE_S:
        raise bad("grace_s", f"must be a number of seconds from 0 to {_MOST_GRACE_S}")
    with _store(gateway) as store:
        key, stored = await store.rotate(name, grace_s)
    await _follow(gateway)
    return shown(stored) | {"key": key}


async def _follow(gateway: Gateway) -> None:
    """Know of the change here at once; the other workers follow by themselves."""
    if gateway.database is not None:
        await gateway.keys.read(gateway.database)
