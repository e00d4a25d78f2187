"""What is known of one model: its state, who waits for it, who runs on it. Used on the event loop only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine.hub import Progress

if TYPE_CHECKING:
    import asyncio

    from app.engine.weights import Folder
    from app.errors import SluiceError

TRANSIENT = 1.05  # activations and fragmentation on top of the weights
_KV_RESERVE = 4096  # tokens of KV cache that a model must have room for, or it could not answer

NOT_LOADED, DOWNLOADING, LOADING, READY, FAILED = "not_loaded", "downloading", "loading", "ready", "failed"


@dataclass(eq=False, slots=True)
class Model:
    """What is known of one model.

    Attributes:
        waiting: requests that wait for it, oldest first, with when they came.
        leases: requests that run on it.
        draining: no new request gets it, so that it can make room for another.
        since: when it was loaded, on the monotonic clock.
    """

    name: str
    pinned: bool = False
    state: str = NOT_LOADED
    folder: Folder | None = None
    progress: Progress = field(default_factory=Progress)
    fraction: float = 0.0
    error: SluiceError | None = None
    failed_at: float = 0.0
    waiting: deque[tuple[float, asyncio.Future[None]]] = field(default_factory=deque)
    leases: int = 0
    draining: bool = False
    since: float = 0.0
    last_use: float = 0.0
    loads: int = 0
    load_s: float = 0.0
    work: asyncio.Task[None] | None = None

    @property
    def resident(self) -> bool:
        """Whether it takes memory."""
        return self.state in {LOADING, READY}

    @property
    def cost(self) -> int:
        """The bytes it takes of the budget, with the least KV cache it needs to be of use."""
        if self.folder is None:
            return 0
        kv = self.folder.kv_bytes_per_token * min(_KV_RESERVE, self.folder.context)
        return int(self.folder.weight_bytes * TRANSIENT) + kv
