"""``/v1/files``: files of a tenant, which nobody else sees."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from app.api import upload
from app.api.check import bad
from app.api.ops import Here, Tenant  # noqa: TC001 - FastAPI reads the annotations
from app.batch.folder import Folder, new_id
from app.errors import CallerError, SluiceError

if TYPE_CHECKING:
    from app.gateway import Gateway
    from app.ledger.batches import BatchStore
    from app.ledger.files import FileStore, StoredFile

files = APIRouter()
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_MOST_LISTED = 10_000
_KEPT_S = {"batch": 30 * 24 * 3600}
"""OpenAI keeps inputs of batches for 30 days, other files until they are deleted."""
_LEAST_S, _MOST_S = 3600, 2_592_000
_LONGEST_NAME = 255


def stores(gateway: Gateway) -> tuple[FileStore, BatchStore]:
    """Return what keeps files and batches.

    Raises:
        SluiceError: there is no database, or it is away.
    """
    database = gateway.database
    if database is None:
        raise CallerError(
            "Files and batches need a database: DATABASE_URL is off.",
            status=404,
            code="unsupported_endpoint",
            fault="policy_not_configured",
        )
    if database.trouble is not None:
        raise SluiceError(
            "The database cannot be used now. Try again.",
            status=503,
            code="database_unavailable",
            fault="sluice_database",
            retry_after_s=2,
        )
    from app.ledger.batches import BatchStore  # brings SQLAlchemy, which is there by now
    from app.ledger.files import FileStore

    return FileStore(database), BatchStore(database)


def folder_of(gateway: Gateway) -> Folder:
    """Return where the contents of files lie."""
    return Folder(gateway.live.current.data_dir)


@files.post("/files")
async def create_file(request: Request, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Keep a file."""
    settings = gateway.live.current
    store, _ = stores(gateway)
    folder = folder_of(gateway)
    incoming = await asyncio.to_thread(folder.incoming)
    kind = request.headers.get("content-type", "")
    given = await upload.take(request.receive, kind, incoming, settings.max_file_mb)
    try:
        file = _checked(given, tenant)
        await asyncio.to_thread(incoming.rename, folder.path(file.id))
        await store.add(file)
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise
    return shown(file)


def _checked(given: upload.Upload, tenant: str) -> StoredFile:
    from app.ledger.files import StoredFile

    if given.filename is None:
        raise CallerError("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    purpose = given.fields.get("purpose")
    if purpose is None:
        raise CallerError("Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter")
    if purpose not in PURPOSES:
        raise bad("purpose", f"must be one of {', '.join(PURPOSES)}")
    if not given.size:
        raise bad("file", "must not be empty")
    now = int(time.time())
    kept_s = _kept_s(given.fields) or _KEPT_S.get(purpose)
    return StoredFile(
        id=new_id("file-"),
        tenant=tenant,
        filename=given.filename[:_LONGEST_NAME] or "file",
        purpose=purpose,
        bytes=given.size,
        created_at=now,
        expires_at=None if kept_s is None else now + kept_s,
    )


def _kept_s(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise bad("expires_after.anchor", "must be created_at")
    return seconds_kept(int(seconds) if seconds and seconds.isdecimal() else None, "expires_after.seconds")


def seconds_kept(seconds: Any, path: str) -> int:
    """Return for how many seconds a file is to be kept.

    Raises:
        CallerError: 400, it is no such number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not _LEAST_S <= seconds <= _MOST_S:
        raise bad(path, f"must be a whole number from {_LEAST_S} to {_MOST_S}")
    return seconds


@files.get("/files")
async def list_files(
    gateway: Here,
    tenant: Tenant,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = _MOST_LISTED,
    order: str = "desc",
) -> dict[str, Any]:
    """List files, the newest first."""
    limit = limit_of(limit, _MOST_LISTED)
    if order not in {"asc", "desc"}:
        raise bad("order", "must be asc or desc")
    store, _ = stores(gateway)
    found = await store.page(tenant, purpose=purpose, after=after, limit=limit + 1, newest_first=order == "desc")
    return page([shown(file) for file in found], limit)


def limit_of(limit: int, most: int) -> int:
    """Check how many are asked for.

    Raises:
        CallerError: 400, too many or none.
    """
    if not 1 <= limit <= most:
        raise bad("limit", f"must be from 1 to {most}")
    return limit


def page(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return one page; one more than ``limit`` was looked for, so that it is known whether there are more."""
    data = found[:limit]
    first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": len(found) > limit}


@files.get("/files/{file_id}")
async def get_file(file_id: str, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Return one file's description."""
    return shown(await found_file(file_id, gateway, tenant))


@files.get("/files/{file_id}/content")
async def get_content(file_id: str, gateway: Here, tenant: Tenant) -> FileResponse:
    """Return what is in a file."""
    file = await found_file(file_id, gateway, tenant)
    path = folder_of(gateway).path(file.id)
    if not await asyncio.to_thread(path.exists):
        raise CallerError(
            f"The contents of {file.id} are not on this host: its hosts need one DATA_DIR.",
            status=404,
            code="file_content_missing",
            fault="sluice_file_missing",
        )
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)


@files.delete("/files/{file_id}")
async def delete_file(file_id: str, gateway: Here, tenant: Tenant) -> dict[str, Any]:
    """Delete a file."""
    store, batches = stores(gateway)
    file = await found_file(file_id, gateway, tenant)
    reader = await batches.reads(file.id)
    if reader is not None:
        raise CallerError(
            f"{file.id} is the input of {reader}, which is not over: cancel that first.", status=409, code="file_in_use"
        )
    await store.delete(tenant, file.id)
    await asyncio.to_thread(folder_of(gateway).drop, file.id)
    return {"id": file.id, "object": "file", "deleted": True}


async def found_file(file_id: str, gateway: Gateway, tenant: str, param: str = "id") -> StoredFile:
    """Return a tenant's file.

    Raises:
        CallerError: 404, there is none of this id; another tenant's is none.
    """
    store, _ = stores(gateway)
    file = await store.get(tenant, file_id)
    if file is None or (file.expires_at or time.time() + 1) <= time.time():
        raise CallerError(f"No such File object: {file_id[:64]}", status=404, param=param, fault="caller_unknown_file")
    return file


def shown(file: StoredFile) -> dict[str, Any]:
    """Return a file in OpenAI's shape."""
    body = {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }
    return body if file.expires_at is None else body | {"expires_at": file.expires_at}
