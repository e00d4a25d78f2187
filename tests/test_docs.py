"""The documentation builds, and none of its links is dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "Sluice" in (tmp_path / "index.html").read_text()


def test_the_site_asks_no_other_host_for_anything(tmp_path: Path) -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in config
    assert "extra_javascript" not in config


def test_the_first_steps_are_the_readmes() -> None:
    section = (ROOT / "README.md").read_text().split("## Two commands\n")[1].split("For real answers")[0]
    page = (ROOT / "docs" / "first-steps.md").read_text()
    for block in re.findall(r"```\w+\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            told = line.split("     #")[0].rstrip()
            assert told in page or told == "scripts/test", f"{line}: run scripts/transcript"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_pages_outside_of_the_site(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / link).exists(), link
