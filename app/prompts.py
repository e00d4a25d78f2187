"""Prompt files: text with front matter under ``prompts/``. They name no model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

DIRECTORY = Path(__file__).parent.parent / "prompts"
"""The prompts that come with Sluice."""


@lru_cache(maxsize=64)
def template(name: str, directory: str = "") -> str:
    """Return a prompt's body, without its front matter.

    Raises:
        FileNotFoundError: there is no such prompt, in the operator's directory or in Sluice's own.
    """
    own = Path(directory) / f"{name}.md" if directory else None
    path = own if own is not None and own.exists() else DIRECTORY / f"{name}.md"
    text = path.read_text(encoding="utf-8")
    if text.startswith("---\n"):
        _, _, text = text[4:].partition("\n---\n")
    return text.strip()
