"""One batch under one lease: check its input, answer the lines that have no answer yet, put the output together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from app.batch import lines, parts
from app.batch.folder import new_id
from app.batch.local import LocalReply, Owner, post
from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from app.batch.folder import Folder
    from app.batch.lines import Line
    from app.batch.local import App
    from app.ledger.batches import Batch, BatchStore
    from app.ledger.files import StoredFile

LEASE_S = 10.0
_RENEW_S = 1.0
"""Progress is told and a cancellation heard so often."""
OUTPUT_KEPT_S = 30 * 24 * 3600
"""OpenAI keeps a batch's files for 30 days where nothing else is said."""
_LEFT_EARLY = {"shutting_down"}


@dataclass(frozen=True, slots=True)
class Shop:
    """What all runs of a process share.

    Attributes:
        parallel: how many lines of all batches may be under way at once.
        draining: whether the process is on its way out.
        file: makes the row of a new file.
    """

    app: App
    store: BatchStore
    folder: Folder
    permits: asyncio.Semaphore
    parallel: int
    draining: Callable[[], bool]
    file: type[StoredFile]


class Run:
    """One run."""

    def __init__(self, batch: Batch, owner: str, shop: Shop) -> None:
        self._batch = batch
        self._owner = owner
        self._shop = shop
        self._part = parts.Part(shop.folder.part(batch.id, owner))
        self._leave = asyncio.Event()
        self._status = batch.status
        self._held_until = time.monotonic() + LEASE_S
        self._done: set[int] = set()
        self._counts = [0, 0]
        self._total = batch.total
        self._failure: OSError | None = None
        self._changing = asyncio.Lock()

    def leave(self) -> None:
        """Begin no further line, and end those under way as if their caller had hung up."""
        self._leave.set()

    async def go(self) -> None:
        """Work until the batch is over, the process leaves, or the lease is lost."""
        beat = asyncio.create_task(self._beat())
        try:
            await self._work()
        finally:
            beat.cancel()
            self._part.close()
            with contextlib.suppress(DatabaseUnavailableError, asyncio.CancelledError):
                await self._change(lease_owner=None, lease_until_ms=None)

    async def _work(self) -> None:
        found = await asyncio.to_thread(self._scanned)
        if self._status == "validating" and not await self._accepted(found):
            return
        places = await asyncio.to_thread(self._places)
        self._done = set(places)
        good = sum(place.good for place in places.values())
        self._counts = [good, len(places) - good]
        self._total = len(found.spans)
        todo = iter([span for span in found.spans if span[0] not in self._done])
        await self._answer(todo)
        await self._finish(found)

    def _scanned(self) -> lines.Scan:
        try:
            with self._input().open("rb") as source:
                return lines.scan(source, self._batch.endpoint)
        except FileNotFoundError:
            gone = {"code": "file_not_found", "message": "The input file is gone.", "param": None, "line": None}
            return lines.Scan(problems=[gone])

    def _input(self) -> Path:
        return self._shop.folder.path(self._batch.input_file_id)

    def _places(self) -> dict[int, parts.Place]:
        return parts.done(self._shop.folder.parts(self._batch.id))

    async def _accepted(self, found: lines.Scan) -> bool:
        """Say what came of the check; return whether there is work to do."""
        now = int(time.time())
        total = len(found.spans)
        if found.problems:
            errors = orjson.dumps({"object": "list", "data": found.problems}).decode()
            await self._change(only="validating", status="failed", failed_at=now, errors=errors, total=total)
            return False
        await self._change(only="validating", status="in_progress", in_progress_at=now, total=total)
        return self._held()

    # -- lines ---------------------------------------------------------------------------------------------------------

    async def _answer(self, todo: Iterator[tuple[int, int, int]]) -> None:
        workers = [self._worker(todo) for _ in range(self._shop.parallel)]
        await asyncio.gather(*workers)
        if self._failure is not None:
            raise self._failure

    async def _worker(self, todo: Iterator[tuple[int, int, int]]) -> None:
        while self._goes_on() and (span := next(todo, None)) is not None:
            await self._line(*span)

    def _goes_on(self) -> bool:
        if time.time() >= self._batch.expires_at:
            self._leave.set()
        over = self._status != "in_progress" or self._failure is not None or self._shop.draining()
        return not over and not self._leave.is_set() and self._held()

    def _held(self) -> bool:
        return self._status != "" and time.monotonic() < self._held_until

    async def _line(self, number: int, begin: int, end: int) -> None:
        """Answer one line and write that down; what was left in the middle is done anew by the next run."""
        line = await asyncio.to_thread(self._read, number, begin, end)
        tried = 0
        while True:
            tried += 1
            reply = await self._call(line)
            body = _decoded(reply)
            code = _code(body)
            if self._leave.is_set() or not reply.whole or code in _LEFT_EARLY:
                return
            wait_s = lines.again_in_s(reply.status, code, _seconds(reply.header(b"retry-after")), tried)
            if wait_s is None:
                break
            if not await self._waited(wait_s):
                return
        await self._keep(line, reply, body)

    def _read(self, number: int, begin: int, end: int) -> Line:
        with self._input().open("rb") as source:
            source.seek(begin)
            return lines.read(source.read(end - begin), number, self._batch.endpoint)

    async def _call(self, line: Line) -> LocalReply:
        owner = Owner(self._batch.tenant, self._batch.key_id)
        async with self._shop.permits:
            if not self._goes_on():
                return LocalReply()
            return await post(self._shop.app, self._batch.endpoint, line.body, owner, self._leave)

    async def _waited(self, seconds: float) -> bool:
        """Wait; return False where the run is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leave.wait()
        return self._goes_on()

    async def _keep(self, line: Line, reply: LocalReply, body: Any) -> None:
        good = lines.good(reply.status)
        request_id = reply.header(b"x-request-id") or ""
        row = lines.answered(self._batch.id, line, reply.status, request_id, body)
        try:
            await asyncio.to_thread(self._part.write, line.number, row, good=good)
        except OSError as error:  # a full disk: nothing is lost, the line is answered anew once there is room
            self._failure = error
            self._leave.set()
            return
        self._done.add(line.number)
        self._counts[not good] += 1

    # -- lease and end -------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Keep the lease, tell the progress, hear of a cancellation."""
        while True:
            await asyncio.sleep(_RENEW_S)
            if time.time() >= self._batch.expires_at:
                self._leave.set()
            with contextlib.suppress(DatabaseUnavailableError):
                await self._change()

    async def _change(self, **values: Any) -> None:
        """Write something down, with the lease renewed and the progress; learn what state the batch is in."""
        async with self._changing:  # what is learned last is what holds
            await self._change_now(values)

    async def _change_now(self, values: dict[str, Any]) -> None:
        before = time.monotonic()
        told = {"lease_until_ms": int((time.time() + LEASE_S) * 1000)}
        if self._total:
            told |= {"completed": self._counts[0], "failed": self._counts[1]}
        status = await self._shop.store.change(self._batch.id, self._owner, **(told | values))
        self._status = status or ""
        self._held_until = before + LEASE_S
        if self._status not in {"validating", "in_progress", "finalizing"}:
            self._leave.set()

    async def _finish(self, found: lines.Scan) -> None:
        """End the batch where it is over: every line has its answer, its time is up, or it was cancelled."""
        now = int(time.time())
        all_done = len(self._done) == len(found.spans)
        expired = now >= self._batch.expires_at
        if not self._held() or not (all_done or expired or self._status == "cancelling"):
            return
        await self._change(only="in_progress", status="finalizing", finalizing_at=now)
        if expired and self._status != "cancelling" and not all_done:
            await asyncio.to_thread(self._expire, found)
        files = await asyncio.to_thread(self._assembled)
        if not self._held():
            return
        await self._end(files, expired=not all_done)
        await asyncio.to_thread(self._shop.folder.drop_parts, self._batch.id)

    async def _end(self, files: dict[str, StoredFile], *, expired: bool) -> None:
        state = "expired" if expired else "completed"
        if self._status == "cancelling":
            state = "cancelled"
        ids = {f"{kind}_file_id": file.id for kind, file in files.items()}
        values = ids | {"status": state, f"{state}_at": int(time.time())}
        await self._change(only=self._status, add=files.values(), **values)

    def _expire(self, found: lines.Scan) -> None:
        """Write the error of every line that was never answered."""
        for number, begin, end in found.spans:
            if number not in self._done:
                told = "This request could not be executed before the completion window expired."
                line = self._read(number, begin, end)
                row = lines.unanswered(self._batch.id, line, "batch_expired", told)
                self._part.write(number, row, good=False)
                self._done.add(number)
                self._counts[1] += 1

    def _assembled(self) -> dict[str, StoredFile]:
        """Put the output together in its place; return the rows of the files that there are."""
        folder = self._shop.folder
        ids = {"output": new_id("file-"), "error": new_id("file-")}
        places = self._places()
        sizes = parts.assemble(places, folder.path(ids["output"]), folder.path(ids["error"]))
        good = sum(place.good for place in places.values())
        self._counts = [good, len(places) - good]
        told = zip(("output", "error"), sizes, strict=True)
        return {kind: self._file(ids[kind], kind, size) for kind, size in told if size}

    def _file(self, file_id: str, kind: str, size: int) -> StoredFile:
        now = int(time.time())
        return self._shop.file(
            id=file_id,
            tenant=self._batch.tenant,
            filename=f"{self._batch.id}_{kind}.jsonl",
            purpose="batch_output",
            bytes=size,
            created_at=now,
            expires_at=now + (self._batch.output_expires_s or OUTPUT_KEPT_S),
        )


def _decoded(reply: LocalReply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None


def _code(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
