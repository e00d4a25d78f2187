"""What a name in ``model`` stands for: auto, a role, an alias, a target, or a bare id that a backend has. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from app.call import Choice, Target, Verdict
from app.endpoints import ROLES
from app.errors import CallerError
from app.route import known
from app.route.tiers import auto_roles
from app.settings import Settings, parse_chain
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.call import Ask


_FILES = ("task/", "pipeline/")
"""Models that are prompt files."""


@value
class Chain:
    """What a model name stands for.

    Attributes:
        choices: targets in order, with their weights.
        role: the role they come from, or None.
        spares: for ``auto``: further roles to go to when these do not serve.
        why: a sentence a person can read.
    """

    choices: tuple[Choice, ...]
    role: str | None
    why: str
    spares: tuple[str, ...] = ()


def chain_of(ask: Ask, verdict: Verdict, settings: Settings) -> Chain:
    """Unite ``model`` and OpenRouter's ``models`` into one chain.

    Raises:
        CallerError: nobody knows a name and ``UNKNOWN_MODEL=error``.
    """
    model = ask.body.get("model") or ""
    names = [name for name in (model, *(ask.body.get("models") or ())) if name]
    if len(names) <= 1:
        return resolve(names[0] if names else "auto", ask.endpoint, verdict, settings)
    chains = [resolve(name, ask.endpoint, verdict, settings) for name in names]
    choices = tuple(choice for chain in chains for choice in chain.choices)
    return Chain(choices, chains[0].role, "; then ".join(chain.why for chain in chains))


def resolve(name: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain:
    """Find out what one model name stands for.

    Raises:
        CallerError: nobody knows it and ``UNKNOWN_MODEL=error``.
    """
    meaning = settings.model_aliases.get(name)
    if meaning is not None:
        inner = _role(meaning, endpoint, verdict, settings) or Chain(_full(parse_chain(meaning)), None, "")
        return Chain(inner.choices, inner.role, f"{name!r} is an alias of {meaning}", inner.spares)
    found = _known(name, endpoint, verdict, settings)
    if found is not None:
        return found
    if settings.unknown_model == "error":
        raise CallerError(
            f"The model {name!r} does not exist. Ask for auto, a role, backend/model-id, or an id of GET /v1/models.",
            status=404,
            code="model_not_found",
            param="model",
            fault="caller_unknown_model",
        )
    auto = _auto(endpoint, verdict, settings)
    return Chain(auto.choices, auto.role, f"nobody knows the model {name!r}; {auto.why}", auto.spares)


def _known(name: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain | None:
    role = _role(name, endpoint, verdict, settings)
    if role is not None:
        return role
    target = _target(name, settings)
    return Chain((Choice(target),), None, f"the caller asked for {target}") if target else None


def _role(name: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain | None:
    lower = name.lower()
    if lower == "auto":
        return _auto(endpoint, verdict, settings)
    if lower in settings.chains:
        return Chain(chain_of_role(lower, settings), lower, f"the caller asked for the role {lower}")
    return None


def _auto(endpoint: str, verdict: Verdict, settings: Settings) -> Chain:
    role = ROLES.get(endpoint)
    if role is not None:
        return Chain(chain_of_role(role, settings), role, f"{endpoint} go to the role {role}")
    first, *spares = auto_roles(verdict, settings)
    judged = f"{verdict.kind or 'unjudged'}, complexity {verdict.complexity or 'unknown'}"
    return Chain(chain_of_role(first, settings), first, f"{judged}: the role {first}", tuple(spares))


def meant(name: str, settings: Settings) -> tuple[str, ...]:
    """Return the names under which a key may allow a model: as it is asked for, and what that stands for."""
    meaning = settings.model_aliases.get(name, name)
    lower = meaning.lower()
    if lower == "auto" or lower in settings.chains:
        return name, lower
    if meaning != name or name.startswith(_FILES):
        return name, meaning
    target = _target(name, settings)
    return ("auto",) if target is None else (name, str(target))


def chain_of_role(role: str, settings: Settings) -> tuple[Choice, ...]:
    """Return a role's chain; short names of models stand for the full ones here too."""
    return _full(settings.chains.get(role, ()))


@lru_cache(maxsize=1024)
def _full(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    return tuple(Choice(known.expand(target), weight) for target, weight in choices)


def _target(name: str, settings: Settings) -> Target | None:
    """Read ``backend/model-id``, or find whose a bare id is: configured targets first, then the price table's."""
    backend, _, model = name.partition("/")
    configs = settings.backend_configs
    if model and backend.lower() in configs:
        return known.expand(Target(backend.lower(), model))
    lower = name.lower()
    usable = tuple(config.name for config in configs.values() if config.problem is None)
    for target in _configured(settings):
        if target.backend in usable and lower in known.short_names(target.model):
            return target
    return known.owner(name, usable)


def _configured(settings: Settings) -> Iterator[Target]:
    for role in settings.chains:
        for choice in chain_of_role(role, settings):
            yield choice.target
