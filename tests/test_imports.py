"""Starting is quick, and takes little memory: what is heavy is imported where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HEAVY = (
    *("mlx", "mlx_lm", "transformers", "sqlalchemy", "genai_prices", "sklearn", "llguidance", "redis", "nicegui"),
    *("typer", "rich", "fastapi", "starlette", "httpx", "jinja2", "jsonschema", "yaml"),
)


def test_nothing_heavy_is_imported_at_the_start() -> None:
    code = (
        f"import sys, app.__main__, app.serve, app.main; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.split() == []
