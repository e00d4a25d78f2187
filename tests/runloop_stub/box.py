"""One devbox: a scratch directory in which commands run in bash, and an Ollama that lives as long as its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OLLAMA = """#!/bin/bash
# `ollama serve` answers for as long as this process lives; the stub holds the other end of this request.
case "$1" in
    serve) exec /usr/bin/curl -sN -X POST "$STUB_URL/_ollama/$STUB_BOX?host=$OLLAMA_HOST" ;;
    *) echo "unknown command $1" >&2; exit 1 ;;
esac
"""
_CURL = """#!/bin/bash
# Inside of a box 11434 is Ollama's port; on the machine that runs the tests every box has another.
exec /usr/bin/curl --connect-to "127.0.0.1:11434:127.0.0.1:$(cat "$HOME/.ollama-port" 2>/dev/null || echo 9)" "$@"
"""


@dataclass
class Running:
    """A command under way, or ended."""

    process: asyncio.subprocess.Process
    output: bytearray = field(default_factory=bytearray)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    reader: asyncio.Task[None] | None = None
    done: bool = False

    async def beyond(self, at: int) -> None:
        """Return once there is more output than so many bytes, or no more to come."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.output) > at or self.done)

    async def read(self) -> None:
        """Collect the output to its end."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(65536):
            async with self.changed:
                self.output += data
                self.changed.notify_all()
        await self.process.wait()
        async with self.changed:
            self.done = True
            self.changed.notify_all()


class StubBox:
    """A devbox.

    Attributes:
        ollama: the scripted upstream that plays its Ollama; its log outlives suspension.
        serving: whether its ``ollama serve`` runs.
        resumes, kept_alive: how often these were asked for.
    """

    def __init__(self, box_id: str, home: Path, url: str, parameters: dict[str, Any], told: Callable[[], None]) -> None:
        self.id, self.home, self.parameters = box_id, home, parameters
        self.status = "provisioning"
        self.failure: str | None = None
        self.created_ms = time.time_ns() // 1_000_000
        self.metadata: dict[str, str] = {}
        self.blueprint_id: str | None = None
        self.tunnel: dict[str, Any] | None = None
        self.ollama = Upstream(models=())
        self.ollama_host = ""
        self.serving = False
        self.serves = 0
        self.resumes = self.kept_alive = self.launches = 0
        self.used = time.monotonic()
        self.commands: list[str] = []
        self._stopping = asyncio.Lock()
        self.executions: dict[str, Running] = {}
        self._told = told
        self._url = url
        tools = home / ".tools"
        tools.mkdir(parents=True)
        for name, text in (("ollama", _OLLAMA), ("curl", _CURL)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    # -- its life ------------------------------------------------------------------------------------------------------

    def become(self, status: str) -> None:
        """Change the status, for all to see."""
        self.status = status
        self._told()

    async def boot(self) -> None:
        """Run the launch commands, as on every start."""
        for command in self.parameters.get("launch_commands") or ():
            self.launches += 1
            await self.execute(command)
            if self.status == "shutdown":  # meanwhile
                await self.die()
                return
        self.touch()
        self.become("running")

    async def suspend(self) -> None:
        """Save the disk and end everything that runs."""
        self.become("suspending")
        await self.die()
        self.become("suspended")

    async def die(self) -> None:
        """Kill every process of the box, and with them the Ollama."""
        for running in self.executions.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
        await self.stop_ollama()
        for running in self.executions.values():
            if running.reader is not None:
                await running.reader
        self.executions.clear()

    def touch(self) -> None:
        """Take note of activity: the idle timer begins anew."""
        self.used = time.monotonic()

    def idle_s(self) -> float | None:
        """Return after how many idle seconds it is suspended, or None."""
        after = (self.parameters.get("lifecycle") or {}).get("after_idle") or self.parameters.get("after_idle")
        return float(after["idle_time_seconds"]) if after else None

    # -- commands ------------------------------------------------------------------------------------------------------

    async def execute(self, command: str, *, stdin: bool = False) -> str:
        """Start a command in a login shell of its own, in the home directory; return its id."""
        self.commands.append(command)
        env = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/.tools:/usr/bin:/bin",
            "STUB_URL": self._url,
            "STUB_BOX": self.id,
        }
        process = await asyncio.create_subprocess_exec(
            *("/bin/bash", "--noprofile", "-c", command),
            cwd=self.home,
            env=env,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        running = Running(process)
        running.reader = asyncio.create_task(running.read())
        execution_id = f"exec_{secrets.token_hex(4)}"
        self.executions[execution_id] = running
        return execution_id

    # -- Ollama --------------------------------------------------------------------------------------------------------

    async def start_ollama(self, host: str) -> None:
        """Answer at the box's port."""
        async with self._stopping:
            await self.ollama.start()
        (self.home / ".ollama-port").write_text(str(self.ollama.port))
        self.ollama_host, self.serving = host, True
        self.serves += 1
        self._told()

    async def stop_ollama(self) -> None:
        """Stop answering; connections under way are reset."""
        async with self._stopping:
            self.serving = False
            await self.ollama.stop()
        self._told()

    def view(self) -> dict[str, Any]:
        """Return the box as the API tells it."""
        transition: dict[str, Any] = {"status": self.status, "transition_time_ms": self.created_ms}
        if self.failure:
            transition["failure_reason"] = self.failure
        return {
            "id": self.id,
            "status": self.status,
            "capabilities": [],
            "create_time_ms": self.created_ms,
            "launch_parameters": self.parameters,
            "metadata": self.metadata,
            "state_transitions": [transition],
            "blueprint_id": self.blueprint_id,
            "tunnel": self.tunnel,
        }
