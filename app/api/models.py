"""``GET /v1/models``: what a caller may put into ``model``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.errors import CallerError
from app.prompts.library import PIPELINE, TASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from app.prompts.library import Shelf
    from app.settings import Settings

_CREATED = 1_700_000_000
"""OpenAI's schema wants a date; a role has none, so all get the same."""


def listing(settings: Settings, shelf: Shelf, seen: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return ``auto``, roles, tasks, pipelines and targets that can be served, every alias, and targets that were seen.

    Args:
        settings: the settings in force.
        shelf: the prompt files in force.
        seen: further targets that backends were seen to have.
    """
    configs = settings.backend_configs
    usable = {
        role: [str(choice.target) for choice in chain if configs[choice.target.backend].problem is None]
        for role, chain in settings.chains.items()
    }
    found = [_model("auto", "sluice")] if any(usable.values()) else []
    found += [_model(role, "sluice", targets) for role, targets in usable.items() if targets]
    serving = {role for role, targets in usable.items() if targets}
    found += _prompts(shelf, serving | {"auto"} if serving else set())
    found += [_model(alias, "sluice") for alias in settings.model_aliases]
    targets = dict.fromkeys(target for each in (*usable.values(), seen) for target in each)
    found += [_model(target, target.partition("/")[0]) for target in targets]
    once: dict[str, dict[str, Any]] = {}
    for model in found:  # an alias may have the name of a role
        once.setdefault(model["id"], model)
    return list(once.values())


def _prompts(shelf: Shelf, roles: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the tasks and pipelines that these roles can serve, each with what a caller has to know of it."""
    for task in shelf.tasks.values():
        if task.spec.role not in roles:
            continue
        told: dict[str, Any] = {
            "description": task.spec.description,
            "role": task.spec.role,
            "complexity": task.spec.complexity,
        }
        yield _model(f"{TASK}{task.name}", "sluice") | told | {"prompt": task.version, "inputs": task.spec.inputs}
    for pipeline in shelf.pipelines.values():
        if not {task.spec.role for task in pipeline.tasks.values()} <= roles:
            continue
        model = _model(f"{PIPELINE}{pipeline.name}", "sluice")
        stages = {name: stage.task for name, stage in pipeline.spec.stages.items()}
        yield model | {
            "description": pipeline.spec.description,
            "prompt": pipeline.version,
            "stages": stages,
            "inputs": pipeline.spec.inputs,
        }


def one(name: str, settings: Settings, shelf: Shelf, seen: Iterable[str] = ()) -> dict[str, Any]:
    """Return one model by its name, slashes and all.

    Raises:
        CallerError: 404, it is not in the listing.
    """
    for model in listing(settings, shelf, seen):
        if model["id"] == name:
            return model
    raise CallerError(
        f"The model {name!r} does not exist. GET /v1/models lists those that do.",
        status=404,
        code="model_not_found",
        param="model",
        fault="caller_unknown_model",
    )


def _model(name: str, owner: str, targets: list[str] | None = None) -> dict[str, Any]:
    model: dict[str, Any] = {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}
    if targets is not None:
        model["targets"] = targets
    return model
