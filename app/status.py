"""What a person is told at start and by ``check``: what is usable, and the one thing to set where something is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.settings import mask_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings import Settings


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
