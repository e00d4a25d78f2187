"""``sluice models``: the local models of a running gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from app.settings import Settings

_POLL_S = 0.3


class NotServingError(Exception):
    """No gateway answers where the settings say that one listens, or it refuses; the message says what to do."""


class Gateway:
    """The admin endpoints of the gateway that these settings describe."""

    def __init__(self, settings: Settings) -> None:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
        key = settings.admin_key
        self._url = f"http://{host}:{settings.port}"
        self._headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}

    def client(self) -> httpx.AsyncClient:
        """Return a client; loading a model takes as long as it takes."""
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=None)  # noqa: S113 - see above

    async def states(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Return the state of every local model.

        Raises:
            NotServingError: see the class.
        """
        try:
            answer = await client.get("/admin/models")
        except httpx.TransportError as error:
            raise NotServingError(f"No Sluice answers at {self._url}: start it with scripts/serve.") from error
        models: dict[str, Any] = _told(answer)["models"]
        return models

    async def order(self, client: httpx.AsyncClient, action: str, model: str) -> dict[str, Any]:
        """Load, unload or pull a model.

        Raises:
            NotServingError: see the class.
        """
        try:
            answer = await client.post(f"/admin/models/{action}", json={"model": model})
        except httpx.TransportError as error:
            raise NotServingError(f"No Sluice answers at {self._url}: start it with scripts/serve.") from error
        return _told(answer)


def _told(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    if answer.is_error:
        raise NotServingError(body["error"]["message"])
    return body


def show(settings: Settings) -> None:
    """Print every local model and its state.

    Raises:
        NotServingError: no gateway answers.
    """

    async def fetch() -> dict[str, Any]:
        gateway = Gateway(settings)
        async with gateway.client() as client:
            return await gateway.states(client)

    table = Table("model", "state", "size", "note")
    for name, state in asyncio.run(fetch()).items():
        table.add_row(name, state["state"], _size(state.get("bytes")), (state.get("error") or {}).get("message", ""))
    Console().print(table)


def act(settings: Settings, action: str, model: str) -> str:
    """Order something of a model, with a bar while it goes on; return its state at the end.

    Raises:
        NotServingError: no gateway answers, or it cannot be done.
    """
    return asyncio.run(_act(Gateway(settings), action, f"mlx/{model.removeprefix('mlx/')}"))


async def _act(gateway: Gateway, action: str, model: str) -> str:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    async with gateway.client() as client:
        order = asyncio.create_task(gateway.order(client, action, model))
        with Progress(*columns) as progress:
            bar = progress.add_task(model, total=None, told="")
            while not order.done():
                state = (await gateway.states(client)).get(model, {})
                done, total, told = _progress(state)
                progress.update(bar, completed=done, total=total, told=told)
                await asyncio.wait({order}, timeout=_POLL_S)
        return str((await order)["state"])


def _progress(state: dict[str, Any]) -> tuple[float, float | None, str]:
    if state.get("state") == "downloading" and state.get("total_bytes"):
        done, total = state["done_bytes"], state["total_bytes"]
        return done, total, f"downloading {_size(done)} of {_size(total)}"
    if state.get("state") == "loading":
        return state.get("percent", 0.0), 100.0, "loading"
    return 0.0, None, state.get("state", "")


def _size(size: float | None) -> str:
    return "" if not size else f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"  # noqa: PLR2004 - units
