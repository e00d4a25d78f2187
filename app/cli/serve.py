"""``sluice serve``, which starts without the library of the command line: a start is to be quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from app.settings import ConfigError, Live
from app.status import ENV_FILE, at_start

_OPTION = "--env-file"


def env_file_of(words: list[str]) -> Path | None:
    """Return the file with the settings where the command is a plain ``serve``; None where it is anything else."""
    match words:
        case ["serve"]:
            return ENV_FILE
        case ["serve", word] if word.startswith(f"{_OPTION}="):
            name = word.partition("=")[2]
        case ["serve", option, name] if option == _OPTION:
            pass
        case _:
            return None
    return Path(name) if name and not name.startswith("-") else None


def run(env_file: Path) -> int:
    """Serve until told to stop; return the exit status."""
    try:
        live = Live(env_file)
    except ConfigError as error:
        _tell("\n".join(f"configuration: {mistake}" for mistake in error.mistakes))
        return 2
    _tell(at_start(live.current, env_file))
    os.environ["SLUICE_ENV_FILE"] = str(env_file)
    from app.serve import serve

    return serve(live)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - to the person who starts it
