"""On Linux: a parent that has imported everything and forks the process that serves, again where that is killed.

Importing mlx-lm takes a core for more than a second, a fork milliseconds. So callers of a killed engine (most likely
for want of memory, and then it is the child that is largest) wait for a model to load and for nothing else, and the
start takes nobody else's time. The listening socket is the parent's: connections wait in it meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

log = logging.getLogger("sluice.engine")
FORKS: bool = sys.platform == "linux"  # elsewhere a fork after the device was touched is not safe
_HEALTHY_S = 60.0  # a child that lived this long did not die of what killed the one before it
_IN_A_ROW = 3  # kills after which it is run again
_PR_SET_PDEATHSIG = 1  # prctl(2)
_ASKED = (signal.SIGTERM, signal.SIGINT)


def serve_and_respawn(serve: Callable[[], None], listener: socket.socket) -> int:
    """Run ``serve`` in a child and return its exit code; where a signal kills it, run it again.

    After some kills in a row the last is passed on to whoever started the engine, who waits longer each time. Each line
    ``killed SIGNAL`` on standard output tells them of one that was not passed on.
    """
    gc.collect()
    gc.freeze()  # what is here now is shared with all children, as long as nobody writes to it
    kills = 0
    while True:
        born = time.monotonic()
        child = os.fork()
        if not child:
            _become_child()
            serve()
            return 0
        code = _wait(child, listener)
        kills = kills + 1 if time.monotonic() - born < _HEALTHY_S else 1
        if code >= 0:
            return code
        if kills > _IN_A_ROW or listener.fileno() < 0:  # closed: it has been asked to end
            _die_alike(-code)
        log.error("the engine was killed by signal %d and serves again", -code)
        with contextlib.suppress(OSError):
            sys.stdout.write(f"killed {-code}\n")
            sys.stdout.flush()


def _become_child() -> None:
    for number in _ASKED:
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ctrl-C reaches the parent, which passes it on: twice would mean not to wait for requests
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: int, listener: socket.socket) -> int:
    """Wait for the child's end, passing on signals; return its exit code, or minus the signal that killed it."""

    def pass_on(number: int, _: Any) -> None:
        listener.close()  # or it would take connections that the child no longer does
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _ASKED:
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _die_alike(number: int) -> None:
    """End as the child did, so that whoever waits for this process learns why."""
    with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal does not kill
