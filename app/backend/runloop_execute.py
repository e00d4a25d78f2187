"""HTTP to the Ollama inside of a devbox by executed commands, for where tunnels are not possible.

Every command is one of a closed set of constants; what a caller says goes to its standard input, and never into a
shell's words. Standard output is streamed: it arrives whole, however many lines it has and however long it takes.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from multidict import CIMultiDict
    from yarl import URL

    from app.backend.runloop_api import Execution, RunloopControl
    from app.trace import Trace

ROOT = "http://127.0.0.1:11434"
_CURL = f"exec curl -sSiN --http1.1 --max-redirs 0 {ROOT}"
# curl itself asks for leave before large bodies: an empty Expect keeps it from that, and from a second status line.
_SEND = "-H 'Content-Type: application/json' -H 'Expect:' --data-binary @-"
COMMANDS = {
    **{f"GET {path}": f"{_CURL}{path}" for path in ("/api/tags",)},
    **{
        f"POST {path}": f"{_CURL}{path} {_SEND}"
        for path in ("/v1/chat/completions", "/v1/embeddings", "/api/chat", "/api/pull", "/api/generate")
    },
}
_STATUS = re.compile(rb"HTTP/[\d.]+ (\d{3})")
_MOST_HEAD_BYTES = 64 * 1024
_REFUSED = 7
"""curl's exit status where nobody listens."""
_ending: set[asyncio.Task[None]] = set()


class ExecuteClient:
    """The two methods of HTTP that the wires use, each one a command on the box."""

    def __init__(self, control: RunloopControl, box_id: str) -> None:
        self._control = control
        self._box_id = box_id

    async def post(
        self,
        url: URL,
        headers: CIMultiDict[str],  # noqa: ARG002 - the commands bring their own
        body: bytes,
        connect_s: float,  # noqa: ARG002 - there is nothing to connect to from here
        trace: Trace,
    ) -> ExecutedReply:
        """Send a request and return once the response's headers are there.

        Raises:
            BackendError: CONNECT, nobody listens on the box; or Runloop failed.
        """
        reply = await self._begin(COMMANDS[f"POST {url.path}"], body.decode())
        trace.stage("connect")
        return await reply.begun()

    async def get(
        self,
        url: URL,
        headers: CIMultiDict[str],  # noqa: ARG002
        timeout_s: float,  # noqa: ARG002 - its callers limit the whole exchange
    ) -> ExecutedReply:
        """Fetch something.

        Raises:
            BackendError: CONNECT, nobody listens on the box; or Runloop failed.
        """
        return await (await self._begin(COMMANDS[f"GET {url.path}"], None)).begun()

    async def _begin(self, command: str, stdin: str | None) -> ExecutedReply:
        return ExecutedReply(await self._control.execute(self._box_id, command, stdin))


class ExecutedReply:
    """A response that comes as the standard output of curl, head first."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._output = execution.output()
        self._rest = b""
        self._ended = False
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def begun(self) -> ExecutedReply:
        """Read the head.

        Raises:
            BackendError: there is none.
        """
        try:
            head = await self._head()
        except BaseException:
            self.close()
            raise
        first, *lines = head.split(b"\r\n")
        found = _STATUS.match(first)
        self.status = int(found[1]) if found else 502
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        return self

    async def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._rest:
            data = await self._more()
            self._rest += data
            if not data or len(self._rest) > _MOST_HEAD_BYTES:
                raise await self._headless()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    async def _headless(self) -> BackendError:
        status = await self._execution.status()
        if status == _REFUSED:
            return BackendError(Reason.CONNECT, "No Ollama listens on the devbox.", code="ollama_down")
        message = f"curl on the devbox gave no answer (exit status {status})."
        if status == 127:  # noqa: PLR2004 - the shell's word for a program that is not there
            message += " Install curl in the blueprint, or use RUNLOOP_MODE=tunnel."
        return BackendError(Reason.RESET, message)

    async def _more(self) -> bytes:
        """Return the next bytes; none at the end."""
        while not self._ended:
            try:
                piece = await anext(self._output)
            except StopAsyncIteration:
                self._ended = True
            else:
                if piece:
                    return piece.encode()
        return b""

    async def some(self) -> bytes:
        """Return the bytes that have arrived, at least one; ``b""`` at the body's end.

        Raises:
            BackendError: CUT, curl says that the body was not whole; or Runloop failed.
        """
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        data = await self._more()
        if not data and await self._execution.status() not in {0, None}:
            raise BackendError(Reason.CUT, "The answer on the devbox was cut.")
        return data

    def tap(self, take: Callable[[bytes], bool]) -> None:
        """Offer nothing to ``take``: what comes out of a command comes piece by piece to whoever asks."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BackendError: it was cut, or is larger than the limit.
        """
        parts = bytearray()
        while data := await self.some():
            parts += data
            if len(parts) > limit_bytes:
                raise BackendError(Reason.TOO_LARGE, f"The backend's answer is larger than {limit_bytes} bytes.")
        return bytes(parts)

    def finish(self) -> None:
        """End the command: nothing is kept for the next one."""
        self.close()

    def close(self) -> None:
        """End the command, and with it the generation; harmless when repeated."""
        task = asyncio.get_running_loop().create_task(self._end(kill=not self._ended))
        self._ended = True
        _ending.add(task)
        task.add_done_callback(_ending.discard)

    async def _end(self, *, kill: bool) -> None:
        if kill:
            await self._execution.kill()
        await self._output.aclose()
