"""Callers' keys as every worker knows them: read from the database into memory, and followed there."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.ledger.db import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.call import KeyTerms
    from app.ledger.db import Database
    from app.ledger.key_store import StoredKey

_POLL_S = 0.5
"""Every worker follows a change within a second; a look costs the database one row."""
_LOOK_S = 0.2
_NONE = (None, None)
_WAIT_S = 5.0
"""How long a caller waits for the first reading of the keys: opening a database takes about a second."""


class Keys:
    """The keys, by their digests. Looking one up costs the same for ten and for ten thousand.

    Args:
        database: where they are; None where nothing is kept, so that there are none.
        wall: seconds since 1970.

    Attributes:
        any: whether a key was ever made, be it revoked by now: from then on callers are asked for one.
    """

    def __init__(self, database: Database | None = None, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall
        self._version = 0
        self._digests: dict[bytes, tuple[KeyTerms | None, float | None]] = {}
        self._of_key: dict[str, tuple[bytes, ...]] = {}
        self._read = asyncio.Event()
        self._waits = True
        self.any = False
        if database is None or _has_none(database):
            self._read.set()

    def find(self, digest: bytes) -> KeyTerms | None:
        """Return what the key with this SHA-256 allows; None where it is unknown, revoked, or its time is over."""
        terms, until = self._digests.get(digest, _NONE)
        return None if terms is None or (until is not None and self._wall() >= until) else self._unexpired(terms)

    def of(self, key_id: str) -> KeyTerms | None:
        """Return what the key with this id allows; None where it is unknown, revoked, or its time is over."""
        digests = self._of_key.get(key_id)
        return self._unexpired(self._digests[digests[0]][0]) if digests else None

    def _unexpired(self, terms: KeyTerms | None) -> KeyTerms | None:
        over = terms is not None and terms.expires_at is not None and self._wall() >= terms.expires_at
        return None if over else terms

    @property
    def are_known(self) -> bool:
        """Whether they have been read."""
        return self._read.is_set()

    async def known(self) -> bool:
        """Wait for the keys to be read for the first time, but only once; return whether they were."""
        if self._waits and not self._read.is_set():
            try:
                async with asyncio.timeout(_WAIT_S):
                    await self._read.wait()
            except TimeoutError:
                self._waits = False
        return self._read.is_set()

    async def follow(self) -> None:
        """Read the keys, and what changes of them, until cancelled."""
        database = self._database
        if database is None:
            return
        while True:
            if database.trouble is None:
                with contextlib.suppress(DatabaseUnavailableError):  # then what is known stays in force
                    await self.read(database)
            await asyncio.sleep(_POLL_S)

    async def read(self, database: Database) -> None:
        """Read what has changed since the last time.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        from app.ledger.key_store import KeyStore

        store = KeyStore(database)
        while changed := await store.changes(self._version):
            for each in changed:
                self._take(each)
            self._version = changed[-1].version
        self._read.set()

    def _take(self, key: StoredKey) -> None:
        for digest in self._of_key.pop(key.terms.id, ()):
            self._digests.pop(digest, None)
        for digest, until in key.digests:
            self._digests[digest] = (key.terms, until)
        self._of_key[key.terms.id] = tuple(digest for digest, _ in key.digests)
        self.any = True


def _has_none(database: Database) -> bool:
    """Whether it is a file of this host without a key in it; so most gateways need not wait for it to be opened."""
    if not database.sqlite:
        return False
    path = Path(database.url.partition(":///")[2])
    if not path.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_LOOK_S)) as file:
            return file.execute("SELECT 1 FROM api_keys LIMIT 1").fetchone() is None
    except sqlite3.Error as error:
        return "no such table" in str(error)
