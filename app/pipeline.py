"""The order of the stages, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from app import relay
from app.backend.catalog import Catalog
from app.call import Plan, Verdict
from app.charge import charged
from app.dispatch import Walk
from app.mend import Mender, polish_prompt
from app.recall import Recall
from app.replay import Replay
from app.rescue import StreamAnswer
from app.route import known
from app.route.cacheable import cache_key, cacheable
from app.route.classify import classify
from app.route.plan import make_plan
from app.route.tiers import hinted

if TYPE_CHECKING:
    from app.call import Ask
    from app.dispatch import Answer
    from app.gateway import Gateway
    from app.recall import AnyAnswer
    from app.relay import RelayAnswer
    from app.settings import Settings
    from app.trace import Trace


async def run(ask: Ask, settings: Settings, gateway: Gateway, trace: Trace) -> AnyAnswer:
    """Take one call from the parsed ask to a committed answer.

    Args:
        ask: the call.
        settings: the one snapshot that this call sees.
        gateway: what all calls share.
        trace: told every stage, the verdict, the plan and the attempts.

    Raises:
        SluiceError: what the caller is to be told.
    """
    catalog = Catalog(settings, known.context_window)
    verdict, plan = decide(ask, settings, catalog, trace)
    ask = _fitted(ask, plan)
    if await gateway.flow.give_way(later=ask.background):
        trace.stage("turn")
    serve = partial(_serve, ask, plan, settings, gateway, catalog)
    if not cacheable(ask, settings):
        trace.cache = "off"
        return await serve(trace)
    key = cache_key(ask, verdict, plan, settings, polish_prompt(plan, settings))
    return await Recall(ask, key, plan.candidates[0], gateway, trace).answer(serve)


async def _serve(
    ask: Ask, plan: Plan, settings: Settings, gateway: Gateway, catalog: Catalog, trace: Trace
) -> AnyAnswer:
    """Have the candidates answer; check, polish or escalate what they say. Where the key has a budget, it pays."""
    plan, charge = await charged(ask, plan, gateway, settings, trace)
    async with charge:
        mender = Mender(ask, plan, settings, gateway, catalog, trace) if plan.check else None
        held_back = ask.stream and mender is not None and mender.mends and settings.polish_streams == "buffer"
        walk = Walk(_whole(ask) if held_back else ask, plan, settings, gateway.backends, gateway.lanes, trace)
        if ask.stream and not held_back:
            begun = await walk.first(partial(walk.begin, body=ask.body))
            return charge.until_over(StreamAnswer(walk, begun, mender.said if mender else None))
        draft = await walk.first(walk.whole)
        answer = await mender.serve(draft) if mender is not None else draft
        return Replay(answer) if ask.stream else answer


async def run_relay(ask: Ask, settings: Settings, gateway: Gateway, trace: Trace) -> Answer | RelayAnswer:
    """Take one call that is passed on as it is from the parsed ask to a committed answer.

    Raises:
        SluiceError: what the caller is to be told.
    """
    _verdict, plan = decide(ask, settings, Catalog(settings, known.context_window), trace)
    plan, _ = await charged(ask, plan, gateway, settings, trace)
    walk = Walk(ask, plan, settings, gateway.backends, gateway.lanes, trace)
    return await walk.first(partial(relay.attempt, walk))


def decide(ask: Ask, settings: Settings, catalog: Catalog, trace: Trace) -> tuple[Verdict, Plan]:
    """Judge a call and choose its candidates; nothing is sent.

    Raises:
        SluiceError: nobody can serve it.
    """
    judged = classify(ask.body["messages"], bool(ask.body.get("tools"))) if ask.endpoint == "chat" else Verdict()
    trace.verdict = verdict = hinted(judged, ask.hints, ask.sub)
    trace.stage("classify")
    trace.plan = plan = make_plan(ask, verdict, settings, catalog)
    trace.stage("plan")
    return verdict, plan


def _fitted(ask: Ask, plan: Plan) -> Ask:
    """Leave out of the call the turns that the plan leaves out."""
    return ask if plan.messages is None else replace(ask, body={**ask.body, "messages": list(plan.messages)})


def _whole(ask: Ask) -> Ask:
    """Return the call for an answer in one piece."""
    body = {name: value for name, value in ask.body.items() if name not in {"stream", "stream_options"}}
    return replace(ask, body=body)
