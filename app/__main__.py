"""The command line: ``sluice`` or ``python -m app``."""

from __future__ import annotations

import gc
import sys

_INTERRUPTED = 130
"""The exit status of what SIGINT ended, as shells tell it."""


def main() -> None:
    """Run the command line, under its name: a shell cannot complete ``python -m app``."""
    gc.disable()  # looking for garbage among imports takes a fifth of the start
    from app.cli import serve

    env_file = serve.env_file_of(sys.argv[1:])
    if env_file is None:
        from app.cli.commands import cli

        gc.enable()
        cli(prog_name="sluice")
        return
    try:
        sys.exit(serve.run(env_file))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.path.insert(0, "")
    main()
