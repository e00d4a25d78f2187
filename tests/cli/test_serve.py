"""``sluice serve``, which the command line's library has no part in, and which behaves as if it had."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.commands import cli
from app.cli.serve import env_file_of, run


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("serve", ".env"),
        ("serve --env-file a.env", "a.env"),
        ("serve --env-file=a.env", "a.env"),
        *(
            (words, None)
            for words in ("", "serve --help", "serve --env-file", "serve --env-file=", "serve --env-file -h")
        ),
        *((words, None) for words in ("", "check", "serve more", "--help serve", "serve --help", "serve --env-file")),
        *((f"serve {words}", None) for words in ("--env-file=", "--env-file -h", "--env-file a --env-file b")),
    ],
)
def test_only_a_plain_serve_goes_without_the_library(words: str, file: str | None) -> None:
    assert env_file_of(words.split()) == (file and Path(file))


def test_a_mistake_is_told_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = tmp_path / ".env"
    env.write_text("PORT=many\nHOST=0.0.0.0\n")
    other = CliRunner().invoke(cli, ["check", "--env-file", str(env)])
    assert run(env) == other.exit_code == 2
    assert capsys.readouterr().err == other.stderr
    assert other.stderr.startswith("configuration: PORT: ")
