"""The judge: which of two answers serves the reader better, asked both ways round, of a model that knows no names.

Whatever an answer says, it cannot win by its form: it stands between fences that it cannot know, is called by a label
that is drawn for each question, stands first once and second once, and the verdict is one of three words or none. An
answer that is seen to speak to the judge is shown without what it said, and wins nothing by this verdict.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from app.call import Ask, Hints
from app.errors import SluiceError
from app.parity.mask import masked
from app.parity.purse import Need
from app.route.parity import Verdicts
from app.route.polish import conversation
from app.route.resolve import chain_of_role
from app.tasks.context import Context
from app.tasks.serve import find, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.call import Target
    from app.gateway import Gateway
    from app.settings import Settings
    from app.trace import Answered, Trace

TASK = "task/judge"
TIE = "tie"
_QUESTIONS = 3
"""Both ways round, and the first once more where the judge is measured."""
_TRIES = 2
"""Answers to one question: a verdict that breaks the contract is asked for again, once."""
_FRAME_TOKENS = 2048
"""More than the prompt around the data takes."""
_ANSWER_TOKENS = 3000
"""As prompts/judge.md allows."""
_QUESTION_S = 120.0


class Judge:
    """Asks the role ``judge``.

    Args:
        gateway: what all calls share.
        chance: a number from 0 to 1, even; decides which verdicts are asked for twice.
    """

    def __init__(self, gateway: Gateway, chance: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._chance = chance

    def targets(self, settings: Settings) -> tuple[Target, ...]:
        """Return who may be asked; nobody where the role has no usable target."""
        chain = chain_of_role("judge", settings)
        return tuple(each.target for each in chain if settings.backend_configs[each.target.backend].problem is None)

    def needs(self, targets: tuple[Target, ...], data_tokens: int) -> list[Need]:
        """Return what one comparison can take at most, of conversation and answers of so many tokens."""
        need = Need(targets, data_tokens + _FRAME_TOKENS + _ANSWER_TOKENS, _ANSWER_TOKENS)
        return [need] * (_QUESTIONS * _TRIES)

    async def compare(self, answered: Answered, reference: str, settings: Settings, trace: Trace) -> Verdicts:
        """Compare an answer with the reference's; a question without a good verdict leaves None."""
        target_text, target_speaks = masked(answered.text)
        reference_text, reference_speaks = masked(reference)
        asked = conversation(answered.body["messages"])
        first = await self._ask(asked, target_text, reference_text, settings, trace)
        if first is None:
            return Verdicts()
        second = await self._ask(asked, reference_text, target_text, settings, trace)
        again = None
        if self._chance() < settings.judge_retest_share:
            again = await self._ask(asked, target_text, reference_text, settings, trace)
        turned = None if second is None else -second
        if bool(target_speaks) != bool(reference_speaks):
            first, turned = (_no_win(each, for_target=bool(target_speaks)) for each in (first, turned))
        return Verdicts(first, turned, again)

    async def _ask(self, asked: str, one: str, other: str, settings: Settings, trace: Trace) -> int | None:
        """Ask once; 1 the first answer is better, -1 the second, 0 a tie, None where there is no good verdict."""
        from app.tasks.single import run_task

        labels = _labels()
        values: dict[str, Any] = {
            "conversation": asked,
            "answer_a": one,
            "answer_b": other,
            "reference": None,
            "verdicts": [{"label": each} for each in (*labels, TIE)],
        }
        try:
            context = await self._context(settings)
            task = find(TASK, context.shelf)
            done = await run_task(context, task, values, trace)  # type: ignore[arg-type]
        except SluiceError:
            return None
        return {labels[0]: 1, labels[1]: -1, TIE: 0}.get(done.value["verdict"])

    async def _context(self, settings: Settings) -> Context:
        deadline = asyncio.get_running_loop().time() + _QUESTION_S
        ask = Ask("chat", {"model": TASK}, Hints(), "parity", deadline, f"judge_{os.urandom(6).hex()}")
        return Context(ask, settings, self._gateway, await self._gateway.library.shelf(), quiet)


def _labels() -> tuple[str, str]:
    """Draw two labels that no answer can know beforehand."""
    one, other = (os.urandom(3).hex().upper() for _ in range(2))
    return (f"X{one}", f"Y{other}") if one < other else (f"Y{one}", f"X{other}")


def _no_win(verdict: int | None, *, for_target: bool) -> int | None:
    """Return a verdict by which the answer that spoke to the judge does not win."""
    if verdict is None:
        return None
    return min(verdict, 0) if for_target else max(verdict, 0)
