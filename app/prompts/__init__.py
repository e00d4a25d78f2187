"""Prompt files: text with front matter under ``prompts/``. They name no model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "prompts"
"""The prompts that come with Sluice."""


def template(name: str, directory: str = "") -> str:
    """Return a prompt's body, without its front matter; an edited file is read anew.

    Raises:
        FileNotFoundError: there is no such prompt, in the operator's directory or in Sluice's own.
        UnicodeDecodeError: it is not UTF-8.
    """
    own = Path(directory) / f"{name}.md" if directory else None
    path = own if own is not None and own.exists() else DIRECTORY / f"{name}.md"
    return _body(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _body(path: Path, changed_ns: int, size: int) -> str:  # noqa: ARG001 - they tell one text of the file from another
    text = path.read_text(encoding="utf-8")
    if text.startswith("---\n"):
        _, _, text = text[4:].partition("\n---\n")
    return text.strip()
