"""Starting is quick, and takes little memory: what is heavy is imported where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CODE = """
import asyncio, sys
import app.__main__, app.serve, app.main

def told(*names):
    print(*[name for name in names if name in sys.modules])

told("mlx", "mlx_lm", "transformers", "sqlalchemy", "genai_prices", "sklearn", "llguidance", "redis", "nicegui",
     "typer", "rich", "fastapi", "starlette", "httpx", "jinja2", "jsonschema", "yaml")

from app.ledger.db import Database, address

async def opened():
    database = Database(address("", sys.argv[1]))
    await database.start()
    import app.ledger.batches, app.ledger.budget_store, app.ledger.key_store, app.ledger.parity, app.ledger.read
    await database.close()

asyncio.run(opened())
told("sqlalchemy", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql", "asyncpg", "alembic", "mako")

from pathlib import Path
from app.settings import Live

app.serve.config_of(Live(Path(sys.argv[1], ".env"))).load()
told("uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl", "h11", "fastapi")
"""


def test_nothing_heavy_is_imported_at_the_start_nor_for_a_new_database(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    at_start, for_database, to_serve = done.stdout.splitlines()
    assert (at_start, for_database, to_serve) == ("", "sqlalchemy", "")
