"""The order of the stages, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from app.backend.catalog import lacks
from app.call import Plan, Trace, Verdict
from app.dispatch import Answer, Walk
from app.rescue import StreamAnswer
from app.route.plan import make_plan

if TYPE_CHECKING:
    from app.call import Ask
    from app.gateway import Gateway
    from app.settings import Settings


async def run(ask: Ask, settings: Settings, gateway: Gateway, trace: Trace) -> Answer | StreamAnswer:
    """Take one call from the parsed ask to a committed answer.

    Args:
        ask: the call.
        settings: the one snapshot that this call sees.
        gateway: what all calls share.
        trace: told every stage, the verdict, the plan and the attempts.

    Raises:
        SluiceError: what the caller is to be told.
    """
    _, plan = decide(ask, settings, trace)
    walk = Walk(ask, plan, settings, gateway.backends, gateway.lanes, trace)
    if ask.stream:
        return StreamAnswer(walk, await walk.first(partial(walk.begin, body=ask.body)))
    return await walk.first(walk.whole)


def decide(ask: Ask, settings: Settings, trace: Trace | None = None) -> tuple[Verdict, Plan]:
    """Judge a call and choose its candidates; nothing is sent.

    Raises:
        SluiceError: nobody can serve it.
    """
    trace = trace or Trace()
    trace.verdict = verdict = Verdict()
    trace.stage("classify")
    trace.plan = plan = make_plan(ask, verdict, settings, lacks(settings))
    trace.stage("plan")
    return verdict, plan
