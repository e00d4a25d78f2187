"""``python -m tests.upstream --port 9001``: the scripted upstream as a program."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from tests.upstream import answers, control, faults, relays
from tests.upstream.server import MODELS, Upstream

if TYPE_CHECKING:
    from tests.upstream.log import Attempt


def main(argv: list[str] | None = None) -> None:
    """Run until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(_options(argv)))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description=__doc__,
        epilog="\n\n".join(str(module.__doc__) for module in (faults, answers, relays, control)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--log", action="store_true", help="print each attempt when it has ended")
    parser.add_argument("--say-scripted", action="store_true", help="answers say that they are scripted; 20 ms a word")
    parser.add_argument("--seed", type=int, default=0, help="of what happens by chance")
    parser.add_argument("--key", help="the bearer token to ask for")
    parser.add_argument("--models", default=",".join(MODELS), help="what GET /v1/models lists, comma separated")
    return parser.parse_args(argv)


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with Upstream(
        options.port,
        host=options.host,
        seed=options.seed,
        friendly=options.say_scripted,
        key=options.key,
        models=options.models.split(","),
        on_end=_print if options.log else None,
    ) as up:
        _say(f"listening on {up.url}")
        await stop.wait()


def _print(attempt: Attempt) -> None:
    took_ms = ((attempt.ended_at or attempt.at) - attempt.at) * 1000
    faults_ = ",".join(attempt.faults) or "-"
    _say(
        f"{attempt.path} {attempt.model} #{attempt.number} {faults_} {attempt.status} {attempt.ended} "
        f"{attempt.chunks} chunks {attempt.bytes} bytes {took_ms:.1f} ms"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
