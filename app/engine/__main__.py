"""``python -m app.engine``: one engine on a Unix socket or a port.

Exit codes: 0 asked to end; 2 wrong settings; 3 the extra ``local`` is not installed; 4 the address is taken;
75 a step hung and a restart may help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import respawn, runtime
from app.engine.settings import EngineSettings, SettingsError, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import uvicorn

log = logging.getLogger("sluice.engine")
WRONG_SETTINGS, NO_EXTRA, ADDRESS_TAKEN = 2, 3, 4
_GRACE_S = 5  # for requests at work when the engine is told to end
_BACKLOG = 2048  # a short one drops connections of a burst, each of which then waits a second to try again


def main(argv: Sequence[str] | None = None) -> int:
    """Run an engine until it is told to end, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ)
    except SettingsError as error:
        return _refuse(str(error), WRONG_SETTINGS)
    try:
        listener = _listen(settings)
    except OSError as error:
        return _refuse(f"cannot listen on {settings.uds or f'{settings.host}:{settings.port}'}: {error}", ADDRESS_TAKEN)
    # One line for whoever started this: from now on connections are queued, and answered once mlx is imported.
    sys.stdout.write(f"listening on {_address(listener)}\n")
    sys.stdout.flush()
    try:
        found = runtime.prepare(settings)
    except runtime.MissingExtraError as error:
        return _refuse(str(error), NO_EXTRA)
    log.info("mlx-lm %s on the %s, BLAS %s", found["mlx_lm"], found["device"], found["blas"] or "built in")
    import app.engine.server  # noqa: F401 - before there are children, so that they need not import it

    with contextlib.closing(listener):
        if respawn.FORKS:
            return respawn.serve_and_respawn(lambda: _serve(settings, found, listener), listener)
        _serve(settings, found, listener)
    return 0


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return name if isinstance(name, str) else f"http://{name[0]}:{name[1]}"


def _refuse(why: str, code: int) -> int:
    sys.stderr.write(f"engine: {why}\n")
    return code


def _listen(settings: EngineSettings) -> socket.socket:
    """Bind the address, a Unix socket for this user alone; it answers once the engine accepts.

    Raises:
        OSError: the address is taken or cannot be had.
    """
    if settings.uds is None:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    _clear_stale(Path(settings.uds))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(settings.uds)
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    return listener


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more, as a killed engine leaves behind."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise OSError("another engine listens there")


def _serve(settings: EngineSettings, found: dict[str, Any], listener: socket.socket) -> None:
    import uvicorn

    from app.engine.server import App

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Leave signals to ``_run``: uvicorn would raise them again at the end and so skip the clearing up."""
            yield

    config = uvicorn.Config(
        App(settings, found),
        access_log=False,
        log_config=None,
        backlog=_BACKLOG,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
    )
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(Server(config), listener, settings))
    finally:
        if settings.uds is not None:
            Path(settings.uds).unlink(missing_ok=True)


async def _run(server: uvicorn.Server, listener: socket.socket, settings: EngineSettings) -> None:
    """Serve until SIGTERM, SIGINT or, where wanted, the end of standard input; a second signal waits for nobody."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if settings.exit_on_eof:
        loop.add_reader(0, readable)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
