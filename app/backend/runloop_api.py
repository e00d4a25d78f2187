"""Runloop's control API by its official client: boxes, tunnels, executed commands. Its errors become ours here."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from app.backend.runloop_box import SETTLED, BoxView, Tunnel
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    import httpx
    from runloop_api_client import AsyncRunloop
    from runloop_api_client.types import DevboxView
    from runloop_api_client.types.devbox_create_params import Tunnel as TunnelWish

    from app.config import DevboxOptions

_OWNER = "sluice_blueprint"
"""The metadata by which all processes know the boxes that were created here: its value is the blueprint's id."""
_HOLD_S = 20
"""How long the API may hold a wait for a status; it answers 408 after at most 30 s (its OpenAPI text)."""
_TIMEOUT_S = 30.0
_STDIN_CHARS = 64 * 1024
SERVE = 'OLLAMA_HOST=0.0.0.0:11434 nohup ollama serve >>"$HOME/ollama.log" 2>&1 &'
"""Starts Ollama. On all addresses: one that listens on loopback alone refuses the tunnel's Host header with a 403."""
_TIMED_OUT = 408
_CONFLICT = frozenset({400, 409, 412})


class RunloopControl:
    """The calls that a box needs; the client is imported and built at the first of them.

    Its import takes more than half a second: it is done in a thread, and only where Runloop is used at all.
    """

    def __init__(self, options: DevboxOptions) -> None:
        self._options = options
        self._client: AsyncRunloop | None = None
        self._http: httpx.AsyncClient | None = None
        self._building = asyncio.Lock()

    async def _sdk(self) -> AsyncRunloop:
        async with self._building:
            if self._client is None:
                module = await asyncio.to_thread(importlib.import_module, "runloop_api_client")
                import httpx  # 40 modules, for those only who use Runloop

                self._http = httpx.AsyncClient(timeout=httpx.Timeout(_TIMEOUT_S, connect=5.0))
                self._client = module.AsyncRunloop(
                    bearer_token=self._options.api_key,
                    base_url=self._options.api_url,
                    max_retries=1,  # whoever waits has other candidates; a failed wake rests before the next
                    http_client=self._http,
                )
            return self._client

    async def view(self, box_id: str) -> BoxView:
        """Look at a box."""
        sdk = await self._sdk()
        with _told("look at the devbox", box_id):
            return _seen(await sdk.devboxes.retrieve(box_id))

    async def mine(self) -> list[BoxView]:
        """List the living boxes that were created here from the blueprint."""
        sdk = await self._sdk()
        mine = self._options.blueprint_id
        with _told("list the devboxes"):
            boxes = sdk.devboxes.list(limit=500)
            return [_seen(box) async for box in boxes if box.metadata.get(_OWNER) == mine and _lives(box)]

    async def create(self) -> BoxView:
        """Create a box that starts Ollama whenever it starts, and that Runloop suspends once it is idle."""
        sdk = await self._sdk()
        tunnel: TunnelWish = {"auth_mode": "authenticated", "http_keep_alive": True, "wake_on_http": False}
        with _told("create a devbox from the blueprint", self._options.blueprint_id):
            return _seen(
                await sdk.devboxes.create(
                    blueprint_id=self._options.blueprint_id,
                    name="sluice-ollama",
                    metadata={_OWNER: self._options.blueprint_id},
                    tunnel=tunnel if self._options.tunnel else None,
                    launch_parameters={
                        "launch_commands": [SERVE],
                        "lifecycle": {
                            "after_idle": {"idle_time_seconds": self._options.idle_suspend_s, "on_idle": "suspend"}
                        },
                    },
                )
            )

    async def resume(self, box_id: str) -> None:
        """Resume a box; where another process was first the API calls it a conflict, and the next look will tell."""
        from runloop_api_client import APIStatusError

        sdk = await self._sdk()
        with _told("resume the devbox", box_id):
            try:
                await sdk.devboxes.resume(box_id)
            except APIStatusError as error:
                if error.status_code not in _CONFLICT or (await self.view(box_id)).status == "suspended":
                    raise

    async def settled(self, box_id: str, statuses: tuple[str, ...] = SETTLED) -> BoxView:
        """Wait, as long as the caller does, until a box has one of these statuses."""
        from runloop_api_client import APIStatusError
        from runloop_api_client.types import DevboxView

        sdk = await self._sdk()
        with _told("wait for the devbox", box_id):
            while True:
                try:
                    return _seen(
                        await sdk.post(
                            f"/v1/devboxes/{box_id}/wait_for_status",
                            body={"statuses": list(statuses), "timeout_seconds": _HOLD_S},
                            cast_to=DevboxView,
                            options={"max_retries": 0},
                        )
                    )
                except APIStatusError as error:
                    if error.status_code != _TIMED_OUT:
                        raise

    async def tunnel(self, box_id: str) -> Tunnel:
        """Enable a tunnel that asks for a token."""
        sdk = await self._sdk()
        with _told("enable a tunnel to the devbox", box_id):
            made = await sdk.devboxes.enable_tunnel(
                box_id, auth_mode="authenticated", http_keep_alive=True, wake_on_http=False
            )
        found = _tunnel(made)
        if found is None:
            message = f"Runloop opened a tunnel to the devbox {box_id} that asks for no token; it is not used."
            raise BackendError(Reason.NOT_READY, message, status=503, code="tunnel_open")
        return found

    async def shutdown(self, box_id: str) -> None:
        """End a box for good."""
        sdk = await self._sdk()
        with _told("shut down the devbox", box_id):
            await sdk.devboxes.shutdown(box_id)

    async def keep_alive(self, box_id: str) -> None:
        """Reset a box's idle timer."""
        sdk = await self._sdk()
        with _told("keep the devbox alive", box_id):
            await sdk.devboxes.keep_alive(box_id)

    async def execute(self, box_id: str, command: str, stdin: str | None = None) -> Execution:
        """Start a command, never one with a caller's words in it: those go to its standard input."""
        sdk = await self._sdk()
        with _told("execute a command on the devbox", box_id):
            made = await sdk.devboxes.execute_async(box_id, command=command, attach_stdin=stdin is not None)
            running = Execution(sdk, box_id, made.execution_id)
            if stdin is not None:
                await running.feed(stdin)
        return running

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


class Execution:
    """A command that runs on a box."""

    def __init__(self, sdk: AsyncRunloop, box_id: str, execution_id: str) -> None:
        self._sdk, self._box_id, self._id = sdk, box_id, execution_id

    async def feed(self, text: str) -> None:
        """Write the whole standard input and close it; piece after piece, for sends at the same time have no order.

        Nothing is sent twice: a repeated piece would be in the input twice.
        """
        for at in range(0, len(text), _STDIN_CHARS):
            await self._send({"text": text[at : at + _STDIN_CHARS]})
        await self._send({"signal": "EOF"})

    async def _send(self, body: dict[str, str]) -> None:
        path = f"/v1/devboxes/{self._box_id}/executions/{self._id}/send_std_in"
        await self._sdk.post(path, body=body, cast_to=object, options={"max_retries": 0})

    async def output(self) -> AsyncGenerator[str]:
        """Yield the standard output, all of it, as it comes; the consumer closes this generator.

        Raises:
            BackendError: Runloop failed.
        """
        with _told("read from the devbox", self._box_id, Reason.CUT):
            stream = await self._sdk.devboxes.executions.stream_stdout_updates(self._id, devbox_id=self._box_id)
            async with stream:
                async for piece in stream:
                    yield piece.output

    async def status(self) -> int | None:
        """Return the exit status of a command that has ended.

        Raises:
            BackendError: Runloop failed.
        """
        with _told("look at a command on the devbox", self._box_id, Reason.CUT):
            return (await self._sdk.devboxes.executions.retrieve(self._id, devbox_id=self._box_id)).exit_status

    async def kill(self) -> None:
        """End the command, and so the generation that it waits for; one that has ended is no error."""
        with contextlib.suppress(BackendError), _told("end a command on the devbox", self._box_id):
            await self._sdk.devboxes.executions.kill(self._id, devbox_id=self._box_id)


def _seen(box: DevboxView) -> BoxView:
    parameters = box.launch_parameters
    idle = (parameters.lifecycle.after_idle if parameters.lifecycle else None) or parameters.after_idle
    told = [each.failure_reason for each in box.state_transitions if each.failure_reason]
    return BoxView(
        id=box.id,
        status=box.status,
        created_ms=box.create_time_ms,
        tunnel=_tunnel(box.tunnel),
        idle_s=idle.idle_time_seconds if idle else None,
        why=box.failure_reason or box.shutdown_reason or (told[-1] if told else None),
    )


def _tunnel(found: Any) -> Tunnel | None:
    if found is None or found.auth_mode != "authenticated" or not found.auth_token:
        return None
    return Tunnel(found.tunnel_key, found.auth_token)


def _lives(box: DevboxView) -> bool:
    return box.status not in {"failure", "shutdown"}


@contextlib.contextmanager
def _told(what: str, which: str = "", reason: Reason = Reason.NOT_READY) -> Iterator[None]:
    """Turn the client's errors into ours: what could not be done, why, and what to set."""
    import httpx
    from runloop_api_client import APIError, APIStatusError

    doing = f"{what} {which}".strip()
    try:
        yield
    except APIStatusError as error:
        raise _refused(doing, which, error, reason) from error
    except (APIError, httpx.HTTPError) as error:
        message = f"Runloop's API did not answer to {doing}: {error}"
        raise BackendError(reason, message, status=503, code="runloop_unreachable") from error


def _refused(doing: str, which: str, error: Any, reason: Reason) -> BackendError:
    body = error.body if isinstance(error.body, dict) else {}
    told = str(body.get("message") or error.message)[:300]
    if error.status_code in {401, 402, 403}:
        message = f"Runloop refuses to {doing}: {told} Check RUNLOOP_API_KEY and the account."
        return BackendError(Reason.DEAD_KEY, message, status=503, type="authentication_error", code="runloop_key")
    if error.status_code == 404:  # noqa: PLR2004 - not found
        message = f"Runloop knows no {which}: {told} Set RUNLOOP_DEVBOX_ID or QWEN_OLLAMA_BLUEPRINT_ID to one that is."
        return BackendError(reason, message, status=503, code="devbox_missing")
    message = f"Runloop failed to {doing} ({error.status_code}): {told}"
    return BackendError(reason, message, status=503, code="runloop_error")
