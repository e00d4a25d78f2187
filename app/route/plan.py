"""From what the caller asked for, and the verdict on it, to the candidates in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from app.call import Ask, Choice, OnWeak, Plan, Target, Verdict
from app.endpoints import EXAMPLES, RELAYS, ROLES, path_of
from app.errors import CallerError, PolicyError, SluiceError
from app.route import fit, known
from app.route.classify_text import tokens
from app.route.needs import FIELD_OF, needs_of
from app.route.resolve import Chain, chain_of, chain_of_role
from app.route.tiers import LAST_RESORT, arm_of, sticky_key

if TYPE_CHECKING:
    from app.config import BackendConfig
    from app.settings import Settings

_SMALLEST_WINDOW = 2048
"""Prompt and answer of up to this many tokens fit everywhere: nobody's window needs to be looked up for them."""
_NOT_ALLOWED = "is not among the local models"


class Catalog(Protocol):
    """What is known of targets."""

    def lacks(self, target: Target) -> frozenset[str]:
        """Return the abilities that a target is known to lack."""

    def window(self, target: Target) -> int | None:
        """Return a target's context window in tokens, where it is known."""


@dataclass(slots=True)
class _Sieve:
    """Candidates that are left, and why others are not; ``forbidden``: LOCAL_ONLY alone keeps some of them out."""

    left: list[Target] = field(default_factory=list)
    skipped: list[tuple[Target, str]] = field(default_factory=list)
    roles: dict[Target, str] = field(default_factory=dict)
    forbidden: bool = False


def make_plan(ask: Ask, verdict: Verdict, settings: Settings, catalog: Catalog) -> Plan:
    """Choose the candidates.

    Raises:
        CallerError: the model is unknown under ``UNKNOWN_MODEL=error``, or no candidate can do what is asked.
        PolicyError: LOCAL_ONLY leaves no candidate.
        SluiceError: no candidate is usable as Sluice is configured.
    """
    chain, sieve = _beginning(ask, verdict, settings)
    if ask.sub is not None:
        _leave_to_others(sieve, ask.sub.but)
    if not sieve.left:
        raise _nothing_usable(ask.endpoint, chain, sieve)
    _keep_able(ask, sieve, catalog)
    why = [chain.why]
    messages, dropped = _fit(ask, verdict, settings, sieve, catalog)
    role = sieve.roles.get(sieve.left[0], chain.role)
    if role != chain.role:
        why.append(f"no target of {chain.role} can serve, so {role} does")
    arm = _arm_first(ask, chain.choices if role == chain.role else chain_of_role(role or "", settings), role, sieve)
    if arm is not None:
        why.append(f"the A/B weights chose {arm}")
    if dropped:
        why.append(f"the {dropped} oldest turns do not fit and are left out")
    return Plan(
        candidates=tuple(sieve.left),
        role=role,
        skipped=tuple(sieve.skipped),
        check=chain.role is not None and ask.endpoint == "chat" and ask.sub is None,
        on_weak=on_weak(role, settings),
        arm=arm,
        messages=messages,
        dropped_turns=dropped,
        why=tuple(why),
    )


class _Kept:
    """What models stand for under one snapshot of the settings, and what of it is usable."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings
        self.found: dict[tuple[object, ...], tuple[Chain, _Sieve]] = {}


_kept = _Kept()
_MOST_KEPT = 1024
"""Callers can write names without end."""


def _beginning(ask: Ask, verdict: Verdict, settings: Settings) -> tuple[Chain, _Sieve]:
    """Return the chain of a call and what of it is usable, which is the same for many calls."""
    global _kept  # noqa: PLW0603 - it is as good as a cache of a pure function
    if _kept.settings is not settings or len(_kept.found) >= _MOST_KEPT:
        _kept = _Kept(settings)
    named = (ask.endpoint, ask.body.get("model"), *(ask.body.get("models") or ()), verdict.kind, verdict.complexity)
    found = _kept.found.get(named)
    if found is None:
        chain = chain_of(ask, verdict, settings)
        found = _kept.found[named] = chain, _usable(chain, settings)
    chain, sieve = found
    return chain, _Sieve(sieve.left.copy(), sieve.skipped.copy(), sieve.roles, sieve.forbidden)


def on_weak(role: str | None, settings: Settings) -> OnWeak:
    """Return what becomes of a weak answer of a role; who named a target gets what it says."""
    if role is None:
        return "serve"
    own = settings.on_weak_by_role.get(role)
    return own if own in {"polish", "escalate", "serve"} else settings.on_weak  # type: ignore[return-value]


def _arm_first(ask: Ask, choices: tuple[Choice, ...], role: str | None, sieve: _Sieve) -> Target | None:
    """Put the A/B arm that this call falls to in front; an arm that cannot serve leaves its share to the others."""
    weights = {target: weight for target, weight in choices if weight and target in sieve.left}
    if not weights:
        return None
    arm = arm_of(weights, sticky_key(role or "", ask.body, ask.hints))
    sieve.left.sort(key=lambda target: target != arm)
    return arm


def _usable(chain: Chain, settings: Settings) -> _Sieve:
    """Keep what is usable: the chain's own targets, then, for ``auto``, those of the spare roles."""
    sieve = _Sieve()
    for role in (chain.role, *chain.spares):
        if sieve.left and role in LAST_RESORT and role != chain.role:
            break
        for target, _ in chain.choices if role == chain.role else chain_of_role(role or "", settings):
            if target in sieve.roles:
                continue
            sieve.roles[target] = role or ""
            problem = _problem(target, settings.backend_configs[target.backend], settings)
            if problem is None:
                sieve.left.append(target)
            elif role == chain.role:
                sieve.skipped.append((target, problem))
            sieve.forbidden |= problem is not None and problem.startswith("LOCAL_ONLY")
    if chain.role is None:
        sieve.roles.clear()
    return sieve


def _leave_to_others(sieve: _Sieve, but: tuple[Target, ...]) -> None:
    sieve.skipped += [(target, "it broke the contract") for target in sieve.left if target in but]
    sieve.left = [target for target in sieve.left if target not in but]


def _problem(target: Target, config: BackendConfig, settings: Settings) -> str | None:
    if config.problem is None and config.models is not None and target.model not in config.models:
        return _NOT_ALLOWED
    if config.problem is None and settings.force_local_llm is not None and config.local != settings.force_local_llm:
        return f"FORCE_LOCAL_LLM is {str(settings.force_local_llm).lower()}"
    return config.problem


def _keep_able(ask: Ask, sieve: _Sieve, catalog: Catalog) -> None:
    needed = needs_of(ask.endpoint, ask.body)
    if ask.sub is not None:
        needed -= {"schema"}  # its prompt says the same, and its contract is judged afterwards
    if ask.native is not None:
        needed |= ask.native.needs
    if not needed:
        return
    lacking = {target: needed & (catalog.lacks(target) | known.lacks(target)) for target in sieve.left}
    unable = [(target, f"cannot do {', '.join(sorted(lack))}") for target, lack in lacking.items() if lack]
    able = [target for target, lack in lacking.items() if not lack]
    if not able and all(ask.endpoint in lack for lack in lacking.values()):
        raise _no_endpoint(ask.endpoint, "; ".join(f"{target.backend} has no such endpoint" for target in lacking))
    if not able:
        told = "; ".join(f"{target} {why}" for target, why in unable)
        first = min(lacking[unable[0][0]])
        raise CallerError(
            f"No candidate can do what is asked: {told}.",
            code="unsupported_parameter",
            param=FIELD_OF.get(first, first),
        )
    sieve.left = able
    sieve.skipped += unable


def _fit(
    ask: Ask, verdict: Verdict, settings: Settings, sieve: _Sieve, catalog: Catalog
) -> tuple[tuple[dict[str, object], ...] | None, int]:
    """Leave out targets whose window is too small; where all are, drop the oldest turns for the largest window."""
    if ask.endpoint != "chat" or (ask.native is not None and ask.native.needs):
        return None, 0  # turns can be left out of a chat only
    room = fit.room_for_answer(ask.body) + fit.tokens_of_tools(ask.body)
    needed = (verdict.prompt_tokens or 0) + room
    if needed <= _SMALLEST_WINDOW:
        return None, 0
    windows = {target: catalog.window(target) for target in sieve.left}
    small = {target: window for target, window in windows.items() if window is not None and window < needed}
    if not settings.fit_history and len(small) == len(windows):
        return None, 0
    if len(small) < len(windows):
        _leave_out(sieve, small)
        return None, 0
    largest = max(small.values())
    fitted = fit.fit(ask.body["messages"], largest - room, tokens)
    if fitted is None or not fitted[1]:
        return None, 0  # not even the newest turn fits, or the estimate was too high: the backend has the last word
    _leave_out(sieve, {target: window for target, window in small.items() if window < largest})
    return tuple(fitted[0]), fitted[1]


def _leave_out(sieve: _Sieve, small: dict[Target, int]) -> None:
    sieve.left = [target for target in sieve.left if target not in small]
    sieve.skipped += [(target, f"its window of {window} tokens is too small") for target, window in small.items()]


def _no_endpoint(endpoint: str, why: str) -> CallerError:
    """Say that nobody has an endpoint, and what to set so that somebody has."""
    role = ROLES[endpoint]
    variable = f"MODEL_{role.upper()}"
    return CallerError(
        f"No backend serves {path_of(endpoint)}: {why}. Set {variable} to a target whose backend has it and is usable, "
        f"e.g. {variable}={EXAMPLES[role]}, or name such a target in 'model'.",
        status=404,
        code="unsupported_endpoint",
        param="model",
        fault="policy_not_configured",
    )


def _nothing_usable(endpoint: str, chain: Chain, sieve: _Sieve) -> SluiceError:
    told = "; ".join(f"{target}: {problem}" for target, problem in sieve.skipped)
    disallowed = [target for target, problem in sieve.skipped if problem == _NOT_ALLOWED]
    if disallowed:
        return CallerError(
            f"{disallowed[0]} is not among the local models: name it in a role or in MLX_MODELS, or set "
            "MLX_ALLOW_ANY=true to let callers name any.",
            status=404,
            code="model_not_allowed",
            param="model",
            fault="caller_unknown_model",
        )
    if endpoint in RELAYS and not sieve.forbidden:
        return _no_endpoint(endpoint, told or "nothing is set for it")
    if not sieve.skipped:
        variable = f"MODEL_{(chain.role or '').upper()}"
        return SluiceError(
            f"No model serves this: set {variable} to a target, e.g. {variable}=openai/text-embedding-3-small."
            if chain.role == "embedding"
            else f"No model serves this: set {variable} to a target.",
            status=503,
            code="no_usable_backend",
            fault="policy_not_configured",
        )
    if sieve.forbidden:
        message = f"LOCAL_ONLY is true and this call needs a remote backend. {told}"
        return PolicyError(message, code="local_only", fault="policy_local_only")
    return SluiceError(
        f"No usable backend for this call. {told}.", status=503, code="no_usable_backend", fault="policy_not_configured"
    )
