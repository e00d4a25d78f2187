"""From what the caller asked for, and the verdict on it, to the candidates in order. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.call import Ask, Choice, Plan, Target, Verdict
from app.errors import CallerError, PolicyError, SluiceError
from app.route import known
from app.settings import Settings, parse_chain

if TYPE_CHECKING:
    from app.call import BackendConfig

Lacks = Callable[[Target], frozenset[str]]
"""Which abilities a target is known to lack."""

_SPARE_ROLES = ("large", "medium", "small", "accurate", "fast", "analysis", "code", "polish")
"""Where an ``auto`` call goes when nothing of its own role is usable: the better first."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a model name stands for."""

    choices: tuple[Choice, ...]
    role: str | None
    why: str


def make_plan(ask: Ask, verdict: Verdict, settings: Settings, lacks: Lacks) -> Plan:
    """Choose the candidates.

    Raises:
        CallerError: the model is unknown under ``UNKNOWN_MODEL=error``, or no candidate can do what is asked.
        PolicyError: LOCAL_ONLY leaves no candidate.
        SluiceError: no candidate is usable as Sluice is configured.
    """
    chain = _chain(ask, verdict, settings)
    configs = settings.backend_configs
    usable, skipped = _sift(chain.choices, configs)
    why = [chain.why]
    if not usable and chain.role is not None and _is_auto(ask):
        usable, role = _spare(settings)
        why.append(f"no target of {chain.role} is usable, so {role} serves" if usable else "")
    if not usable:
        raise _nothing_usable(chain, skipped, settings)
    able, unable = _able(usable, needs(ask.body) if ask.endpoint == "chat" else frozenset(), lacks)
    if not able:
        raise _nothing_able(unable)
    return Plan(
        candidates=tuple(dict.fromkeys(able)),
        role=chain.role,
        skipped=(*skipped, *((target, f"cannot do {', '.join(sorted(lack))}") for target, lack in unable)),
        why=tuple(reason for reason in why if reason),
    )


def _is_auto(ask: Ask) -> bool:
    return ask.endpoint != "embeddings" and not ask.body.get("models")


def _chain(ask: Ask, verdict: Verdict, settings: Settings) -> Chain:
    """Unite ``model`` and OpenRouter's ``models`` into one chain."""
    model = ask.body.get("model") or ""
    chains = [
        resolve(name, ask.endpoint, verdict, settings) for name in (model, *(ask.body.get("models") or ())) if name
    ]
    if not chains:
        return resolve("auto", ask.endpoint, verdict, settings)
    choices = tuple(choice for chain in chains for choice in chain.choices)
    return Chain(choices, chains[0].role, "; then ".join(chain.why for chain in chains))


def resolve(name: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain:
    """Find out what one model name stands for.

    Raises:
        CallerError: nobody knows it and ``UNKNOWN_MODEL=error``.
    """
    meaning = settings.model_aliases.get(name)
    if meaning is not None:
        inner = _role(meaning.lower(), endpoint, verdict, settings) or Chain(parse_chain(meaning), None, "")
        return Chain(inner.choices, inner.role, f"{name!r} is an alias of {meaning}")
    found = _resolve_known(name, endpoint, verdict, settings)
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
    return Chain(auto.choices, auto.role, f"nobody knows the model {name!r}; {auto.why}")


def _resolve_known(name: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain | None:
    role = _role(name.lower(), endpoint, verdict, settings)
    if role is not None:
        return role
    target = _target(name, settings)
    return Chain((Choice(target),), None, f"the caller asked for {target}") if target else None


def _role(lower: str, endpoint: str, verdict: Verdict, settings: Settings) -> Chain | None:
    if lower == "auto":
        return _auto(endpoint, verdict, settings)
    if lower in settings.chains:
        return Chain(settings.chains[lower], lower, f"the caller asked for the role {lower}")
    return None


def _auto(endpoint: str, verdict: Verdict, settings: Settings) -> Chain:  # noqa: ARG001 - the verdict decides the tier
    role = "embedding" if endpoint == "embeddings" else "large"
    return Chain(settings.chains.get(role, ()), role, f"auto is the role {role}")


def _target(name: str, settings: Settings) -> Target | None:
    """Read ``backend/model-id``, or find whose a bare id is: configured targets first, then the price table's."""
    backend, _, model = name.partition("/")
    configs = settings.backend_configs
    if model and backend.lower() in configs:
        return known.expand(Target(backend.lower(), model))
    lower = name.lower()
    usable = [config.name for config in configs.values() if config.problem is None]
    for target in _configured(settings):
        if target.backend in usable and lower in known.short_names(target.model):
            return target
    return known.owner(name, usable)


def _configured(settings: Settings) -> Iterator[Target]:
    for chain in settings.chains.values():
        for choice in chain:
            yield choice.target


def _sift(
    choices: tuple[Choice, ...], configs: Mapping[str, BackendConfig]
) -> tuple[list[Target], list[tuple[Target, str]]]:
    usable, skipped = [], []
    for target, _ in choices:
        problem = configs[target.backend].problem
        if problem is None:
            usable.append(target)
        else:
            skipped.append((target, problem))
    return usable, skipped


def _spare(settings: Settings) -> tuple[list[Target], str]:
    for role in _SPARE_ROLES:
        usable, _ = _sift(settings.chains.get(role, ()), settings.backend_configs)
        if usable:
            return usable, role
    return [], ""


def _able(
    targets: list[Target], needed: frozenset[str], lacks: Lacks
) -> tuple[list[Target], list[tuple[Target, frozenset[str]]]]:
    if not needed:
        return targets, []
    missing = [(target, needed & lacks(target)) for target in targets]
    return [target for target, lack in missing if not lack], [each for each in missing if each[1]]


def needs(body: dict[str, Any]) -> frozenset[str]:
    """Return the abilities that a chat body needs and that some backends lack."""
    found = set()
    if (body.get("n") or 1) != 1:
        found.add("n")
    if body.get("logprobs") or body.get("top_logprobs"):
        found.add("logprobs")
    if body.get("logit_bias"):
        found.add("logit_bias")
    if body.get("tools"):
        found.add("tools")
        if body.get("tool_choice") not in (None, "auto"):
            found.add("tool_choice")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        found.add("schema")
    return frozenset(found.union(_content_needs(body.get("messages") or ())))


def _content_needs(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    lists = (message["content"] for message in messages if isinstance(message.get("content"), list))
    for part in itertools.chain.from_iterable(lists):
        if part.get("type") == "image_url":
            yield "vision"
            if not str(part["image_url"].get("url", "")).startswith("data:"):
                yield "image_url"
        elif part.get("type") == "input_audio":
            yield "audio"


def _nothing_usable(chain: Chain, skipped: list[tuple[Target, str]], settings: Settings) -> SluiceError:
    told = "; ".join(f"{target}: {problem}" for target, problem in skipped)
    if not skipped:
        variable = f"MODEL_{(chain.role or '').upper()}"
        return SluiceError(
            f"No model serves this: set {variable} to a target, e.g. {variable}=openai/text-embedding-3-small."
            if chain.role == "embedding"
            else f"No model serves this: set {variable} to a target.",
            status=503,
            code="no_usable_backend",
            fault="policy_not_configured",
        )
    if settings.local_only and all("LOCAL_ONLY" in problem for _, problem in skipped):
        return PolicyError(
            f"LOCAL_ONLY is true and this call needs a remote backend. {told}",
            code="local_only",
            fault="policy_local_only",
        )
    return SluiceError(
        f"No usable backend for this call. {told}.", status=503, code="no_usable_backend", fault="policy_not_configured"
    )


def _nothing_able(unable: list[tuple[Target, frozenset[str]]]) -> CallerError:
    told = "; ".join(f"{target} cannot do {', '.join(sorted(lack))}" for target, lack in unable)
    first = min(unable[0][1])
    field = {"schema": "response_format", "vision": "messages", "image_url": "messages", "audio": "messages"}
    return CallerError(
        f"No candidate can do what is asked: {told}.", code="unsupported_parameter", param=field.get(first, first)
    )
