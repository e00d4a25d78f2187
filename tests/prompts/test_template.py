from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app import prompts

if TYPE_CHECKING:
    from pathlib import Path


def test_the_front_matter_is_left_out() -> None:
    text = prompts.template("polish")
    assert text.startswith("You improve the draft")
    assert "role: polish" not in text


def test_prompts_name_no_model() -> None:
    names = ("llama", "qwen", "gpt", "gemini", "claude", "phi-", "mistral", "groq")
    for path in prompts.DIRECTORY.glob("*.md"):
        text = path.read_text().lower()
        assert [name for name in names if name in text] == []


def test_the_operators_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "polish.md").write_text("---\nrole: polish\n---\nMine: {{ draft }}\n")
    assert prompts.template("polish", str(tmp_path)) == "Mine: {{ draft }}"
    (tmp_path / "plain.md").write_text("No front matter.\n---\nA line.\n")
    assert prompts.template("plain", str(tmp_path)) == "No front matter.\n---\nA line."


def test_an_edited_prompt_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "polish.md").write_text("old")
    assert prompts.template("polish", str(tmp_path)) == "old"
    (tmp_path / "polish.md").write_text("newer")
    assert prompts.template("polish", str(tmp_path)) == "newer"


def test_a_missing_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prompts.template("none", str(tmp_path))
