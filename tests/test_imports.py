"""Starting is quick, and takes little memory: what is heavy is imported where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.serving import program

if TYPE_CHECKING:
    from tests.upstream import Upstream

_CODE = """
import asyncio, sys
import app.__main__, app.serve, app.main

def told(*names):
    print(*[name for name in names if name in sys.modules])

told("mlx", "mlx_lm", "transformers", "sqlalchemy", "genai_prices", "numpy", "sklearn", "llguidance", "redis",
     "nicegui", "typer", "rich", "fastapi", "starlette", "httpx", "jinja2", "jsonschema", "yaml")

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


async def test_calls_are_served_without_numpy_and_what_prompts_need(tmp_path: Path, up: Upstream) -> None:
    """Their extension modules would be among the files that the process has mapped."""
    text = f"BACKENDS__UP__BASE_URL={up.url}\nMODEL_SMALL=up/small\nMODEL_CODE=up/code\nMODEL_LARGE=up/large\n"
    async with program(tmp_path / ".env", f"MLX_ENABLED=false\n{text}") as gateway:
        for asked in ("Say hello.", "Écris une fonction 写一个函数"):
            body = {"model": "auto", "messages": [{"role": "user", "content": asked}]}
            for streams in (False, True):
                answer = await gateway.client.post("/v1/chat/completions", json=body | {"stream": streams})
                assert answer.status_code == 200
        assert (await gateway.client.get("/metrics")).status_code == 200
        mapped = Path(f"/proc/{gateway.pid}/maps").read_text()
    assert "uvloop" in mapped
    assert [name for name in ("numpy", "_yaml", "rpds") if name in mapped] == []
