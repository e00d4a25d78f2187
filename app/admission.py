"""What a caller's key allows: which models, how much at once and in a minute, and how much money."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from app.errors import PolicyError
from app.guard.limits import RateLimitedError
from app.route.resolve import meant
from app.route.spend import prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from app.call import Ask, KeyTerms
    from app.guard.limits import Parallel, Quota, Rates
    from app.settings import Settings
    from app.trace import Attempt, Trace


class Limits:
    """The limits of all keys. What one call takes, ``Turn`` gives back."""

    def __init__(self, rates: Rates, parallel: Parallel) -> None:
        self.rates = rates
        self.parallel = parallel
        self._beside: set[asyncio.Task[None]] = set()

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that the call does not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


class Turn:
    """One call's turn under the limits of its key.

    Attributes:
        quotas: what is left of them, for the response's headers.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._key: KeyTerms | None = None
        self._place: str | None = None
        self._counted = 0
        self.quotas: tuple[Quota, ...] = ()

    async def begin(self, ask: Ask, settings: Settings) -> None:
        """Let a call in.

        Raises:
            PolicyError: 403, the key does not allow the model.
            RateLimitedError: 429, a limit is reached.
        """
        key = ask.key
        if key is None:
            return
        if key.models:
            _check_models(ask, key, settings)
        if not key.limited:
            return
        self._key = key
        if key.max_parallel is not None:
            left_s = ask.deadline - asyncio.get_running_loop().time()
            self._place = await self._limits.parallel.enter(key, left_s)
        if key.rpm is not None or key.tpm is not None:
            self._counted = prompt_tokens(ask)
            try:
                self.quotas = tuple(await self._limits.rates.enter(key, self._counted))
            except RateLimitedError as error:
                self.quotas = error.quotas
                self._counted = 0
                raise

    def end(self, trace: Trace) -> None:
        """Give back what the call took, and count the tokens it used; harmless without ``begin``."""
        key, self._key = self._key, None
        if key is None:
            return
        if self._place is not None:
            self._limits.beside(self._limits.parallel.leave(key, self._place))
        more = _used(trace.attempts) - self._counted
        if key.tpm is not None and more > 0:
            self._limits.beside(self._limits.rates.charge(key, more))


def _used(attempts: Iterable[Attempt]) -> int:
    return sum(each.usage.prompt + each.usage.completion for each in attempts if each.usage is not None)


def _check_models(ask: Ask, key: KeyTerms, settings: Settings) -> None:
    """Refuse a model that the key does not allow.

    What becomes of a call that is allowed - the fallbacks of a role, polish, escalation - is the operator's doing and
    needs no further leave.
    """
    names = [name for name in (ask.body.get("model"), *(ask.body.get("models") or ())) if name] or ["auto"]
    for name in names:
        if not any(fnmatchcase(each, pattern) for each in meant(name, settings) for pattern in key.models):
            raise PolicyError(
                f"The key {key.name!r} may not use the model {name!r}. It may use: {', '.join(key.models)}.",
                code="model_not_allowed",
                param="model",
                fault="policy_model_not_allowed",
            )
