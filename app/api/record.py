"""From what a call left behind to its Record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from app.call import Reasons
from app.dispatch import Answer
from app.trace import Record
from app.usage import read_usage

if TYPE_CHECKING:
    from app.call import Ask, Target
    from app.errors import SluiceError
    from app.ledger.bill import Bill
    from app.recall import AnyAnswer
    from app.trace import Trace, Usage

_MODEL = ("load", "prompt", "decode")
_BACKEND_STAGES = ("queue", "connect", "first_token", "answer", "stream", "retry", "receive", "polish", *_MODEL)
"""Time that is not Sluice's own: waiting for a backend, or for the caller's bytes."""


def make_record(
    trace: Trace,
    ask: Ask | None,
    answer: AnyAnswer | None,
    *,
    endpoint: str,
    request_id: str,
    outcome: str,
    status: int,
    error: SluiceError | None,
    bill: Bill,
    keeps_content: bool = False,
) -> Record:
    """Build the Record of a call that has ended."""
    stages = trace.in_ms()
    said = None if answer is None or isinstance(answer, Answer) else answer.said
    text = _text(answer)
    return Record(
        request_id=request_id,
        endpoint=endpoint,
        tenant=ask.tenant if ask is not None else "unknown",
        stream=ask is not None and ask.stream,
        outcome=outcome,
        status=status,
        target=answer.target if answer is not None else None,
        role=trace.plan.role if trace.plan is not None else None,
        verdict=trace.verdict,
        attempts=bill.attempts,
        usage=bill.usage,
        stages_ms=stages,
        total_ms=round(trace.total_ms(), 3),
        backend_ms=round(sum(stages.get(name, 0.0) for name in _BACKEND_STAGES), 3),
        first_token_ms=(said.first_ns - trace.started_ns) / 1e6 if said is not None and said.first_ns else None,
        per_token_ms=said.per_token_ms() if said is not None else None,
        error_type=error.fault if error is not None else None,
        rescued=tuple(trace.rescued),
        faults=trace.faults,
        polished=trace.polished,
        arm=trace.plan.arm if trace.plan is not None else None,
        chars=len(text) if text is not None else None,
        code_block="```" in text if text is not None else None,
        cache=trace.cache,
        key=ask.key.id if ask is not None and ask.key is not None else None,
        task=trace.task,
        prompt_hash=trace.prompt_hash,
        cost_usd=bill.cost_usd,
        baseline=bill.baseline,
        baseline_usd=bill.baseline_usd,
        saved_usd=bill.saved_usd,
        prompt=_prompt(ask) if keeps_content and ask is not None else None,
        answer=text if keeps_content else None,
        context=trace.context,
        why=_why(trace),
    )


def _why(trace: Trace) -> tuple[str, ...]:
    """Return why a call was judged and sent as it was; what the classifier quotes of the prompt is left out."""
    judged = trace.verdict.reasons if trace.verdict is not None else ()
    planned = trace.plan.why if trace.plan is not None else ()
    if isinstance(judged, Reasons):
        return (*judged.plain, *planned)
    return (*(reason.partition(": '")[0] for reason in judged), *planned)


def _text(answer: AnyAnswer | None) -> str | None:
    """Return the text that was served; None where there was no answer, or one of another kind."""
    if answer is None:
        return None
    if not isinstance(answer, Answer):
        return "".join(answer.said.text)
    choices = answer.whole.body.get("choices")
    content = (choices[0].get("message") or {}).get("content") if choices else None
    return content if isinstance(content, str) else None


def _prompt(ask: Ask) -> str:
    """Return what was asked, as JSON."""
    return orjson.dumps(ask.body.get("messages") or ask.body.get("input")).decode()


def served_usage(trace: Trace, answer: AnyAnswer | None) -> Usage | None:
    """Return the usage of the answer that was served, or of as much of it as the caller had; None without one."""
    if answer is None:
        return None
    if isinstance(answer, Answer):
        return answer.usage or read_usage(answer.whole.body.get("usage")) or _counted(trace, answer.target)
    if answer.replayed:
        return answer.said.usage(trace.prompt_estimate())
    used = (each.usage for each in reversed(trace.attempts) if each.result in {"ok", "abandoned"})
    return next(used, None)


def _counted(trace: Trace, target: Target) -> Usage | None:
    """Return what Sluice counted of a plain answer whose backend told no usage."""
    found = [each.usage for each in trace.attempts if each.result == "ok" and each.target == target]
    return found[-1] if found else None
