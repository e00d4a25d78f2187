"""Which local models fit this machine, and whether it can run any."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from functools import cache

_GIB = 1 << 30
_PHI = "mlx/mlx-community/Phi-3.5-mini-instruct-4bit"  # 2.2 GB of weights
_QWEN_7B = "mlx/mlx-community/Qwen2.5-7B-Instruct-4bit"  # 4.3 GB of weights
_QWEN_05B = "mlx/Qwen/Qwen2.5-0.5B-Instruct"  # 1 GB of bfloat16 weights, 2 GB where the engine widens them
_BOTH_GIB = 15.0
"""With both models resident, caches and everything else on the machine: a 16 GB Mac, as it reports itself."""


@cache
def local_models() -> tuple[str, str]:
    """Return the targets for small and for medium asks.

    On a Linux CPU a 4-bit model is slower than an unquantised one (8.0 against 23.3 tokens/s measured for the same
    weights with OpenBLAS, which the extra brings), and a 7B hopeless: a small unquantised model serves both.
    """
    return choose(sys.platform, platform.machine(), memory_bytes())


def choose(system: str, machine: str, memory: int) -> tuple[str, str]:
    """Return (small, medium) for a platform (``darwin``, ``linux``), a processor and its memory in bytes."""
    if system == "darwin" and machine == "arm64":
        return (_PHI, _QWEN_7B) if memory >= _BOTH_GIB * _GIB else (_PHI, _PHI)
    return (_QWEN_05B, _QWEN_05B)


def memory_bytes() -> int:
    """Return the machine's memory in bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


@cache
def missing_engine() -> str | None:
    """Say what to install before local models can run, or None. Nothing heavy is imported to find out."""
    if importlib.util.find_spec("mlx_lm") is None or importlib.util.find_spec("mlx") is None:
        return "install the extra [local]: SLUICE_EXTRAS=local scripts/serve"
    return None
