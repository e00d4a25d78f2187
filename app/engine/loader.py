"""Putting a model into memory and taking it out again, on the MLX thread."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from app.engine import adapter, hub, runtime, spill
from app.engine.errors import ModelError
from app.engine.runner import Limits, Runner
from app.engine.weights import read_folder

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.engine.model import Model
    from app.engine.settings import EngineSettings
    from app.engine.thread import MlxThread
    from app.engine.weights import Folder

log = logging.getLogger("sluice.engine")
_PREFIX_SHARE = 10  # kept prefixes take at most a tenth of the budget
_CPU_STEP, _GPU_STEP = 128, 512  # least prompt tokens of a step; a longer step freezes running streams


class Loader:
    """Loads and drops models; keeps the draft model, which all of them share."""

    def __init__(self, settings: EngineSettings, thread: MlxThread, budget: int, *, widen: bool) -> None:
        self._settings, self._thread, self._budget = settings, thread, budget
        self._widen_up_to = budget // 2 if widen else 0
        self._draft: adapter.Loaded | None = None
        self._draft_folder: Folder | None = None
        self._numbers = itertools.count()

    def install(self, model: Model) -> Generator[float, None, None]:
        """Load a model piece by piece and put it to work; yields the fraction done.

        The weights stay on this thread: nothing that outlives the generator may refer to them but the runner.

        Raises:
            Exception: whatever loading raises; see ``faults.explain``.
        """
        folder = model.folder
        if folder is None:
            raise ModelError(f"{model.name} has no folder", status=500)
        draft = yield from self._drafter(model)
        loaded = yield from adapter.load_steps(model.name, folder)
        store = spill.make_store(self._settings.prefix_dir, f"{next(self._numbers)}")
        self._thread.runners[model.name] = Runner(loaded, self.limits(), store, _fitting(draft, loaded))

    def _drafter(self, model: Model) -> Generator[float, None, adapter.Loaded | None]:
        name = self._settings.draft
        if not name or name == model.name:
            return None
        if self._draft is None and self._draft_folder is not None:
            self._draft = yield from adapter.load_steps(name, self._draft_folder)
        return self._draft

    def fetch_draft(self) -> None:
        """Find or download the draft model, where there is to be one. Blocks.

        Raises:
            Exception: whatever fetching raises; see ``faults.explain``.
        """
        name = self._settings.draft
        if name and self._draft_folder is None:
            self._draft_folder = self.read(hub.fetch(name, hub.Progress(), offline=self._settings.offline))

    def read(self, path: Path) -> Folder:
        """Read a model folder's headers.

        Where matrix products of 32 bits are many times faster than those of 16, weights that then still leave half of
        the budget are loaded as such.

        Raises:
            FileNotFoundError, ValueError: as ``read_folder`` does.
        """
        return read_folder(path, self._widen_up_to)

    @property
    def draft_bytes(self) -> int:
        """Bytes of the budget that the draft model takes."""
        return self._draft_folder.weight_bytes if self._draft_folder else 0

    def limits(self) -> Limits:
        """Return what a runner may take."""
        chosen = self._settings
        return Limits(
            batch=chosen.batch,
            prefill_batch=chosen.prefill_batch,
            prefill_step=chosen.prefill_step or (_CPU_STEP if runtime.on_cpu() else _GPU_STEP),
            prefix_bytes=min(chosen.prefix_bytes, self._budget // _PREFIX_SHARE),
            prefix_disk_bytes=chosen.prefix_disk_bytes,
            draft_tokens=chosen.draft_tokens,
        )

    def drop(self, name: str) -> None:
        """Take a model out and give its memory back to the system."""
        runner = self._thread.runners.pop(name, None)
        if runner is not None:
            runner.close(self._thread.out)
        del runner
        runtime.give_back_memory()


def _fitting(draft: adapter.Loaded | None, loaded: adapter.Loaded) -> adapter.Loaded | None:
    """Return the draft model if it speaks the same tokens."""
    if draft is None or len(draft.tokenizer) == len(loaded.tokenizer):
        return draft
    log.warning("%s has other tokens than %s and cannot draft for it", draft.name, loaded.name)
    return None
