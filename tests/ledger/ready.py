"""Databases whose tables are there already: making them takes ten times as long as opening what is there.

That they are made out of nothing is what test_db is about.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.ledger.db import _opened

_DATA_DIR = re.compile(r"^DATA_DIR=(.+)$", re.MULTILINE)


def fill(settings: str) -> None:
    """Put a database into the folder that the text of an ``.env`` names, unless there is something."""
    found = _DATA_DIR.search(settings)
    if found is not None and not (folder := Path(found[1])).exists():
        folder.mkdir(parents=True)
        copy(folder / "sluice.db")


def copy(file: Path) -> None:
    """Write a database into a file, whose folder is there."""
    shutil.copyfile(_made(), file)


def migrate(url: str) -> None:
    """Make the tables; ``url`` is SQLAlchemy's."""
    with ThreadPoolExecutor(1) as elsewhere:  # it runs an event loop of its own
        elsewhere.submit(_opened, url).result()


@functools.cache
def _made() -> Path:
    """Make a database of the test run."""
    file = Path(tempfile.mkdtemp(prefix="sluice-tables-")) / "sluice.db"
    migrate(f"sqlite+aiosqlite:///{file}")
    return file
