"""axe-core, fetched with npm where that is there; kept in a folder of the temporary directory."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

VERSION = "4.10.3"
_SERIOUS = {"serious", "critical"}
_LEFT_OUT = [[".chart svg"], ["tr:nth-child(n+5)"]]
"""Charts, which have a table beside them; and rows of tables from the fifth on, for those before are made alike."""


@functools.cache
def axe_source() -> str:
    """Return axe-core's source; skip the test where npm is not there or brings nothing."""
    folder = Path(tempfile.gettempdir()) / f"sluice-axe-{VERSION}"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        folder.mkdir(exist_ok=True)
        command = [
            npm,
            "install",
            "--prefix",
            str(folder),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            f"axe-core@{VERSION}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm brings no axe-core: {done.stderr.strip().splitlines()[-1:]}")
    return script.read_text()


def violations(page: Page, source: str, *rules: str) -> list[str]:
    """Return what axe finds on a page that is serious or critical, one line each; by all rules, or by some."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(source)
    options = {
        "resultTypes": ["violations"],
        "preload": False,
        **({"runOnly": {"type": "rule", "values": rules}} if rules else {}),
    }
    found: dict[str, Any] = page.evaluate("([exclude, options]) => axe.run({exclude}, options)", [_LEFT_OUT, options])
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
        for node in each["nodes"]
    ]
