"""What the workers of one host tell each other: small files in one directory, each replaced as a whole.

Every worker writes its own file and reads the others'; what belongs to all (operators' orders, the reload counter, who
may probe) is one file, changed under a lock. Times are the host's, so they need no agreement.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from app.guard.share import News, Order, StoreLost, Word, add_up, fresh, newer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from app.guard.breaker import Forced

# A worker writes at least this often, so that one that hangs can be told from one with nothing to say.
_HEARTBEAT_S = 1.0
# Five missed heartbeats: longer than any pause of a healthy worker.
_STALE_S = 5.0

# What must be in a file for it to be ours; one left by another version is as good as none.
_WORKER_SHAPE = {"worker": str, "pid": int, "sections": dict}
_CONTROL_SHAPE = {"overrides": dict, "reload": int, "probes": dict}

_Result = TypeVar("_Result")


class _Copy(NamedTuple):
    """A file as last read. Each write makes a new inode, so the mark tells any two versions apart."""

    mark: tuple[int, int]
    written_at: float
    content: dict[str, Any]


class Board:
    """One worker's view of the directory. Synchronous: each call is a few microseconds to a few hundred.

    Args:
        directory: made if missing; readable by this user alone.
        worker_id: this worker's, unique on the host and fit for a file name.
        wall: seconds since 1970, as file times are.

    Raises:
        OSError: from any method, when the directory cannot be read or written.
    """

    def __init__(self, directory: Path, worker_id: str, wall: Callable[[], float] = time.time) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.worker_id = worker_id
        self._directory = directory
        self.wall = wall
        self._own = directory / f"worker-{worker_id}.json"
        self._control_path = directory / "control.json"
        self._sections: dict[str, Any] = {}
        self._written: dict[str, Any] | None = None
        self._written_at = 0.0
        self._others: dict[str, _Copy] = {}
        self._control = _Copy((0, 0), 0.0, {})
        self.tick()

    def tick(self) -> None:
        """Read what changed and write what is new; to be called every 0.25 s."""
        self._read_control()
        self._read_others()
        if self._sections != self._written or self.wall() - self._written_at >= _HEARTBEAT_S:
            self._write_own()

    def close(self) -> None:
        """Take this worker's file away."""
        self._own.unlink(missing_ok=True)

    # -- each worker's own --------------------------------------------------------------------------------------------

    def publish(self, section: str, data: Any) -> None:
        """Show ``data``, which must be plain JSON, to the others from the next tick on. Give a new object each time."""
        self._sections = self._sections | {section: data}

    def others(self, section: str) -> dict[str, Any]:
        """Return what each other living worker shows under a section, as of the last tick."""
        oldest = self.wall() - _STALE_S
        shown = {name: copy for name, copy in self._others.items() if copy.written_at >= oldest}
        return {
            copy.content["worker"]: copy.content["sections"][section]
            for copy in shown.values()
            if section in copy.content["sections"]
        }

    def _write_own(self) -> None:
        _replace(self._own, {"worker": self.worker_id, "pid": os.getpid(), "sections": self._sections})
        self._written = self._sections
        self._written_at = self.wall()

    def _read_others(self) -> None:
        found: dict[str, _Copy] = {}
        for path in self._directory.glob("worker-*.json"):
            copy = _read(path, _WORKER_SHAPE, self._others.get(path.name)) if path != self._own else None
            if copy is not None and self._lives(path, copy):
                found[path.name] = copy
        self._others = found

    @staticmethod
    def _lives(path: Path, copy: _Copy) -> bool:
        """Say whether a file's worker still runs; the file of a dead one is taken away."""
        try:
            os.kill(copy.content["pid"], 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
            return False
        except PermissionError:
            return True
        return True

    # -- everybody's --------------------------------------------------------------------------------------------------

    def set_override(self, target: str, state: Forced | None) -> None:
        """Force a lane for every worker, None being automatic again."""
        self.give_orders({target: Order(int(self.wall() * 1e6), state)})

    def overrides(self) -> dict[str, Forced | None]:
        """Return the forced state of each lane that was ever forced, as of the last tick."""
        return {target: order.forced for target, order in self.orders().items()}

    def give_orders(self, orders: Mapping[str, Order]) -> None:
        """Write orders down, where they are newer than those there."""

        def edit(control: dict[str, Any]) -> None:
            there = {target: Order(*order) for target, order in control["overrides"].items()}
            control["overrides"] |= newer(orders, there)

        self._change(edit)

    def orders(self) -> dict[str, Order]:
        """Return all orders with their times, as of the last tick."""
        return {target: Order(*order) for target, order in self._control.content.get("overrides", {}).items()}

    def bump_reload(self) -> int:
        """Ask every worker to reload its configuration; returns the new generation."""

        def edit(control: dict[str, Any]) -> int:
            control["reload"] += 1
            return int(control["reload"])

        return self._change(edit)

    def reload_generation(self) -> int:
        """Return how often a reload was asked for, as of the last tick; a worker reloads when it changes."""
        return int(self._control.content.get("reload", 0))

    def take_probe(self, lane: str, lease_s: float) -> bool:
        """Take or keep the right to probe a lane for so many seconds; False while another worker has it."""
        now = self.wall()

        def edit(control: dict[str, Any]) -> bool:
            probes = {name: probe for name, probe in control["probes"].items() if probe[1] > now}
            mine: bool = probes.get(lane, [self.worker_id])[0] == self.worker_id
            if mine:
                probes[lane] = [self.worker_id, now + lease_s]
            control["probes"] = probes
            return mine

        return self._change(edit)

    def drop_probe(self, lane: str) -> None:
        """Give the right to probe a lane back, if this worker has it."""

        def edit(control: dict[str, Any]) -> None:
            if control["probes"].get(lane, [None])[0] == self.worker_id:
                del control["probes"][lane]

        self._change(edit)

    def _change(self, edit: Callable[[dict[str, Any]], _Result]) -> _Result:
        """Change the common file alone: no worker reads it, changes it and writes it back over another's change."""
        import fcntl  # missing on Windows, where one worker needs no board

        with (self._directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read_control()
            control: dict[str, Any] = {"overrides": {}, "reload": 0, "probes": {}} | self._control.content
            control |= {name: dict(control[name]) for name in ("overrides", "probes")}
            result = edit(control)
            _replace(self._control_path, control)
            self._read_control()
        return result

    def _read_control(self) -> None:
        self._control = _read(self._control_path, _CONTROL_SHAPE, self._control) or _Copy((0, 0), 0.0, {})


def _read(path: Path, shape: Mapping[str, type], known: _Copy | None) -> _Copy | None:
    """Read a file if it changed; None if there is none, or nothing of ours in it."""
    try:
        status = path.stat()
        mark = (status.st_mtime_ns, status.st_ino)
        if known is not None and known.mark == mark:
            return known
        content = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    ours = isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in shape.items())
    return _Copy(mark, status.st_mtime, content) if ours else None


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that a reader sees all of the old or all of the new."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(orjson.dumps(content, default=list))
    fresh.replace(path)


class BoardStore:
    """The board as a store of breakers' words; its methods are quick enough for the event loop."""

    name = "board"

    def __init__(self, board: Board) -> None:
        self._board = board
        self._words: dict[str, Word] = {}

    async def exchange(self, told: News) -> News:
        """See Store. A word stays on the board as long as a worker that knows it lives.

        Raises:
            StoreLost: the directory cannot be read or written.
        """
        try:
            return self._exchange(told)
        except OSError as error:
            raise StoreLost(str(error)) from error

    def _exchange(self, told: News) -> News:
        self._words = fresh(self._words | dict(told.words), self._board.wall())
        self._board.publish("lanes", {"words": self._words, "counts": told.counts})
        if told.orders:
            self._board.give_orders(told.orders)
        self._board.tick()
        words = dict(self._words)
        others = self._board.others("lanes").values()
        for shown in others:
            words |= newer({lane: Word(*word) for lane, word in shown["words"].items()}, words)
        return News(words, self._board.orders(), add_up(shown["counts"] for shown in others))

    async def take_probe(self, lane: str, lease_s: float) -> bool:
        """See Store.

        Raises:
            StoreLost: the directory cannot be written.
        """
        try:
            return self._board.take_probe(lane, lease_s)
        except OSError as error:
            raise StoreLost(str(error)) from error

    async def drop_probe(self, lane: str) -> None:
        """See Store.

        Raises:
            StoreLost: the directory cannot be written.
        """
        try:
            self._board.drop_probe(lane)
        except OSError as error:
            raise StoreLost(str(error)) from error
