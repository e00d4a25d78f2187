"""``sluice doctor``: what stands in the way, each finding with its remedy. Calls no paid model."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx

from app.engine import blas
from app.settings import hardware, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.config import BackendConfig
    from app.settings import Settings

Level = Literal["ok", "note", "problem"]
_TIMEOUT_S = 5.0
_GIB = 1 << 30
_DISK_GIB = 5.0
"""Room for the larger of the default models."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    told: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as plain JSON."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything."""
    return [*_machine(settings), *_roles(settings), *asyncio.run(_backends(settings))]


def _in_use(settings: Settings) -> set[str]:
    return {choice.target.backend for chain in settings.chains.values() for choice in chain}


def _machine(settings: Settings) -> Iterator[Finding]:
    config = settings.backend_configs["mlx"]
    if config.problem is not None:
        yield Finding("note", "local models", "not in use: every call goes to a backend elsewhere", config.problem)
        return
    if config.engines:
        return
    chosen = " and ".join(dict.fromkeys(hardware.local_models()))
    why = "Apple Silicon" if sys.platform == "darwin" else "a CPU, where small unquantised models are fastest"
    memory = hardware.memory_bytes() / _GIB
    yield Finding("ok", "local models", f"{chosen}: this is {why}, with {memory:.0f} GiB of memory")
    if sys.platform == "linux":
        yield _products(settings.mlx_openblas)
    cache = _hub_cache()
    missing = [model for model in sorted(config.models or ()) if not _downloaded(model, cache)]
    if missing:
        remedy = "before that: " + ", ".join(f"hf download {model}" for model in missing)
        if settings.local_only:
            yield Finding("problem", "downloads", f"LOCAL_ONLY forbids to download {', '.join(missing)}", remedy)
        else:
            yield Finding("note", "downloads", f"the first call downloads {', '.join(missing)}", remedy)
    yield _disk(cache)


def _products(wanted: str) -> Finding:
    """Tell which library the engine will multiply with; what it does multiply with is in its ``/health``."""
    library = blas.load(wanted, ctypes.RTLD_LOCAL)
    if library is None:
        remedy = "install the extra [local] again, or OpenBLAS, or name it: MLX_OPENBLAS=/path/libopenblas.so"
        return Finding(
            "note", "OpenBLAS", "not found or turned off: local models read prompts several times slower", remedy
        )
    return Finding("ok", "OpenBLAS", f"{library.name} multiplies for local models")


def _disk(cache: Path) -> Finding:
    there = next(each for each in (cache, *cache.parents) if each.exists())
    free = shutil.disk_usage(there).free / _GIB
    if free < _DISK_GIB:
        return Finding(
            "problem", "disk", f"{free:.1f} GiB free at {cache}", "free some, or set HF_HOME to a larger disk"
        )
    return Finding("ok", "disk", f"{free:.0f} GiB free for model files at {cache}")


def _hub_cache() -> Path:
    """Return where huggingface_hub keeps models, by the variables that it reads itself."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _downloaded(model: str, cache: Path) -> bool:
    if model.startswith(("/", "./", "../", "~")):
        return Path(model).expanduser().is_dir()
    return (cache / f"models--{model.replace('/', '--')}" / "snapshots").is_dir()


def _roles(settings: Settings) -> Iterator[Finding]:
    usable = [
        role
        for role, chain in settings.chains.items()
        if any(settings.backend_configs[choice.target.backend].problem is None for choice in chain)
    ]
    if not usable:
        yield Finding(
            "problem", "roles", "not one role has a usable target", "set a key, e.g. GROQ_API_KEY, or install [local]"
        )
    else:
        yield Finding("ok", "roles", f"usable: {', '.join(usable)}")


async def _backends(settings: Settings) -> list[Finding]:
    configs: list[BackendConfig] = []
    for config in settings.backend_configs.values():
        engines = [replace(config, base_url=f"{url.removesuffix('/v1')}/v1") for url in config.engines]
        configs += engines if config.name == "mlx" else [config]
    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
        found = list(await asyncio.gather(*(_backend(client, config) for config in configs)))
    used = _in_use(settings)
    return [each if each.about in used or each.level != "problem" else replace(each, level="note") for each in found]


async def _backend(client: httpx.AsyncClient, config: BackendConfig) -> Finding:
    """Ask a backend for its list of models: that costs nothing, and tells whether it is there and takes the key."""
    if config.problem is not None:
        return Finding("note", config.name, "not in use", config.problem)
    headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    url = mask_url(config.base_url)
    try:
        answer = await client.get(f"{config.base_url}/models", headers=headers)
    except httpx.HTTPError as error:
        return Finding(
            "problem",
            config.name,
            f"{url} cannot be reached: {type(error).__name__}",
            "check the address and the network",
        )
    if answer.status_code in {401, 403}:
        return Finding("problem", config.name, f"{url} refuses the key ({answer.status_code})", "set a valid key")
    return Finding("ok", config.name, f"{url} answers ({answer.status_code})")
