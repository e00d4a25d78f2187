"""Bringing mlx and mlx-lm into the process without the damage their import does. Import nothing of mlx before this."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import blas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.engine.settings import EngineSettings

_WANTED_FILES = 8192
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # as OpenBLAS reads them
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # mallopt(3)
_MAPPED_BYTES = 4 << 20  # larger arrays are mapped each by itself, and leave nothing behind


class MissingExtraError(ImportError):
    """mlx-lm is not installed; the message names the extra that brings it."""


def prepare(settings: EngineSettings) -> dict[str, Any]:
    """Load BLAS, mlx and mlx-lm in the order that works, and return what was found.

    The order matters: the environment before huggingface_hub reads it, OpenBLAS before mlx looks for its functions
    (8 against 249 GFLOP/s measured on a Linux CPU), and the open-file limit guarded while mlx-lm is imported, because
    it lowers that limit for the whole process. ``blas`` is the file of the OpenBLAS in use, or None.

    Raises:
        MissingExtraError: mlx or mlx-lm is not installed.
    """
    _environment(settings)
    _stand_back()
    _few_arenas()
    _leave_a_core()
    library = blas.load(settings.openblas) if sys.platform == "linux" else None
    try:
        with _kept_file_limit():
            import mlx.core as mx
            import mlx_lm
            import mlx_lm.generate
            import mlx_lm.utils
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed: local models need the extra 'local' (uv sync --extra local)"
        ) from error
    _raise_file_limit()
    if on_cpu():
        # On a CPU the compiled kernels are slower (630-800 against 1,580 tokens/s on a small model), need g++ at run
        # time and are written to a predictable path under the temporary directory.
        mx.disable_compile()
    return {"device": "cpu" if on_cpu() else "gpu", "blas": blas.bind(library), "mlx_lm": mlx_lm.__version__}


def _stand_back() -> None:
    """Never interrupt a process that runs: ours computes for long, and others (the gateway) answer in milliseconds.

    It is also faster: mlx wakes its computing thread for every operation, and as an ordinary thread that one takes the
    core from the thread that is still queueing operations, twice an operation (decision 43).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _leave_a_core() -> None:
    """Have OpenBLAS use all cores but one, unless its number of threads is set.

    Its threads wait by spinning. On all cores they keep the thread that queues operations, and everybody else, from
    theirs: on two cores one thread answers sooner than two (decision 46).
    """
    if sys.platform == "linux" and not any(os.environ.get(name) for name in _BLAS_THREADS):
        os.environ[_BLAS_THREADS[0]] = str(max(1, len(os.sched_getaffinity(0)) - 1))


def _few_arenas() -> None:
    """Keep glibc from giving every thread a heap of its own: freed pages of one are of no use to another."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_ARENA_MAX, 2)
            libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def on_cpu() -> bool:
    """Return whether mlx computes on the CPU."""
    import mlx.core as mx

    return bool(mx.default_device() == mx.cpu)


def _environment(settings: EngineSettings) -> None:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if settings.hf_token:
        os.environ["HF_TOKEN"] = settings.hf_token


@contextlib.contextmanager
def _kept_file_limit() -> Iterator[None]:
    """Ignore changes of limits while the block runs: ``import mlx_lm`` sets 2,048 open files for good."""
    real = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = real


def _raise_file_limit() -> None:
    """Raise the soft limit of open files towards the hard one: macOS starts at 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(_WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def give_back_memory() -> None:
    """Return freed memory to the system; on Linux the allocator keeps it until it is told to trim."""
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def active_bytes() -> int:
    """Return the bytes that mlx arrays hold now."""
    import mlx.core as mx

    return int(mx.get_active_memory())


def rss_bytes() -> int:
    """Return the resident size of this process, or 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine_bytes() -> int:
    """Return the memory that models may use: the device's recommended working set, else the cgroup's or the RAM."""
    import mlx.core as mx

    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended and not on_cpu():
        return int(recommended)
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([ram, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            yield int(Path(path).read_text(encoding="ascii"))
