"""What a person is told at start and by ``check``: what is usable, and the one thing to set where something is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app import __version__
from app.settings import mask_url, shadowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings import Settings

ENV_FILE = Path(".env")
"""The usual file with the settings, which need not be there."""


def at_start(settings: Settings, env_file: Path) -> str:
    """Return what there is, what of the file with the settings does not count, and where clients find Sluice."""
    lines = [f"Sluice {__version__}\n", f"{table(settings)}\n"]
    if env_file != ENV_FILE and not env_file.exists():
        lines.append(f"note: there is no file {env_file}: the environment and the defaults are all there is")
    names = shadowed(env_file)
    lines += [f"note: the environment sets {name}: editing {env_file} does not change it" for name in names]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return "\n".join([*lines, f"base_url for OpenAI clients: http://{host}:{settings.port}/v1\n"])


def table(settings: Settings) -> str:
    """Return the table of backends and roles as text."""
    return "\n".join([*_backends(settings), "", *_roles(settings)])


def _backends(settings: Settings) -> Iterator[str]:
    yield "backends"
    for name, config in settings.backend_configs.items():
        mark, told = ("+", mask_url(config.base_url)) if config.problem is None else ("-", config.problem)
        yield f"  {mark} {name:<13} {told}"


def _roles(settings: Settings) -> Iterator[str]:
    yield "roles"
    configs = settings.backend_configs
    for role, chain in settings.chains.items():
        usable = [str(choice.target) for choice in chain if configs[choice.target.backend].problem is None]
        missing = [f"{choice.target.backend}: {configs[choice.target.backend].problem}" for choice in chain]
        mark, told = ("+", ", then ".join(usable)) if usable else ("-", "; ".join(dict.fromkeys(missing)))
        yield f"  {mark} {role:<13} {told}"
    if "embedding" not in settings.chains:
        yield f"  - {'embedding':<13} set MODEL_EMBEDDING"
