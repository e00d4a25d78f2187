"""What was served, for those who look at it afterwards."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from app.dispatch import Answer
from app.trace import Answered, Served

if TYPE_CHECKING:
    from app.call import Ask
    from app.gateway import Gateway
    from app.recall import AnyAnswer
    from app.trace import Record, Trace

log = logging.getLogger("sluice")


def show(gateway: Gateway, ask: Ask, record: Record, answer: AnyAnswer | None, trace: Trace) -> None:
    """Show a call that was served well to those who look at it; one that fails costs its own, not the call."""
    served = Served(record, partial(_answered, ask, record, answer, trace))
    for look in gateway.after:
        try:
            look(ask, served)
        except Exception:
            log.exception("looking at the call %s afterwards failed", record.request_id)


def _answered(ask: Ask, record: Record, answer: AnyAnswer | None, trace: Trace) -> list[Answered]:
    """Return what was served, for a task each of its calls; nothing where it is no text."""
    if trace.task is not None:
        return trace.answered
    text, finish = _said(answer)
    drafted = next((each.target for each in record.attempts if each.result == "ok"), record.target)
    if not text or drafted is None or record.role is None:
        return []
    return [Answered(ask.body, record.role, drafted, text, finish, record.verdict, record.usage)]


def _said(answer: AnyAnswer | None) -> tuple[str, str | None]:
    """Return the text of the first choice and why it ended; no text where there is more than text."""
    if answer is None:
        return "", None
    if not isinstance(answer, Answer):
        return "".join(answer.said.text) if answer.said.exact else "", answer.said.finish.get(0)
    choices = answer.whole.body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    text = message.get("content") or message.get("refusal")
    return text if isinstance(text, str) and not message.get("tool_calls") else "", choices[0].get("finish_reason")
