"""After the answer: it is checked; a weak one is polished, escalated, or served. The better of the two is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from app import prompts
from app.backend.base import Whole
from app.call import Verdict
from app.dispatch import Answer, Walk
from app.errors import SluiceError
from app.route.plan import make_plan
from app.route.polish import polish_messages
from app.route.quality import better, inspect
from app.route.tiers import tiers_above
from app.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.backend.catalog import Catalog
    from app.call import Ask, Plan, Purpose, Target
    from app.gateway import Gateway
    from app.settings import Settings
    from app.trace import Attempt, Trace
    from app.transcript import Transcript

_MARGIN_S = 5.0
_FOOTER = "\n\n---\nDraft by {draft}, polished by {polish}."


@value
class Mender:
    """Judges the answer of one call, and mends it where the plan says so."""

    ask: Ask
    plan: Plan
    settings: Settings
    gateway: Gateway
    catalog: Catalog
    trace: Trace

    @property
    def mends(self) -> bool:
        """Whether a weak answer of this call would be polished or escalated."""
        ways = {"polish": _polishable, "escalate": _mendable}
        if self.ask.native is not None and self.ask.native.needs:
            return False  # who mends it would not see all that was asked
        return self.plan.on_weak in ways and ways[self.plan.on_weak](self.ask.body)

    async def serve(self, draft: Answer) -> Answer:
        """Return the draft, or what is better."""
        faults = self.faults(draft)
        self.trace.faults, self.trace.polished, self.trace.weak = faults, "no", bool(faults)
        self.trace.stage("check")
        ways: dict[str, Callable[[Answer], Awaitable[Answer]]] = {"polish": self._polish, "escalate": self._escalate}
        mend = ways.get(self.plan.on_weak)
        if not faults or mend is None or not self.mends:
            return draft
        try:
            other = await mend(draft)
        except _Nobody:
            return draft  # that is not a mending that failed
        except (SluiceError, OSError, ValueError):  # the latter two: a prompt file that cannot be read
            self.trace.polished = "failed"
            return draft
        finally:
            self.trace.stage("polish")
        left = self.faults(other)
        if not better(faults, left):
            return draft
        self.trace.weak = bool(left)
        self.trace.attempts[:] = [_as_draft(each) for each in self.trace.attempts]
        self.trace.polished = "yes" if self.plan.on_weak == "polish" else "no"
        return self._signed(draft, other)

    def faults(self, answer: Answer) -> tuple[str, ...]:
        """Return the faults of a whole answer's first choice."""
        choice = answer.whole.body["choices"][0]
        message = choice.get("message") or {}
        content = message.get("content") or message.get("refusal") or ""
        calls = bool(message.get("tool_calls") or message.get("function_call"))
        return self._inspect(content if isinstance(content, str) else "", choice.get("finish_reason"), calls=calls)

    def said(self, script: Transcript) -> tuple[str, ...]:
        """Return the faults of a streamed answer that has been served."""
        if not script.text and not script.exact:
            return ()  # tool calls and the like: nothing that these checks could judge
        return self._inspect("".join(script.text), script.finish.get(0), calls=False)

    def _inspect(self, text: str, finish: str | None, *, calls: bool) -> tuple[str, ...]:
        kind = self.trace.verdict.kind if self.trace.verdict is not None else None
        return inspect(self.ask.body, text, kind=kind, finish_reason=finish, tool_calls=calls)

    async def _polish(self, draft: Answer) -> Answer:
        """Have the role polish improve the draft."""
        template = prompts.template("polish", self.settings.prompts_dir)
        messages = polish_messages(
            template, self.ask.body["messages"], _text(draft), self.trace.faults, f"<<{os.urandom(9).hex()}>>"
        )
        return await self._other({"messages": messages} | _limits(self.ask.body), "polish", (), "polish")

    async def _escalate(self, draft: Answer) -> Answer:
        """Ask the nearest tier above that somebody serves who was not asked yet."""
        asked = (draft.target, *(attempt.target for attempt in self.trace.attempts))
        body = {
            name: value for name, value in self.ask.body.items() if name not in {"models", "stream", "stream_options"}
        }
        for role in tiers_above(self.plan.role):
            with contextlib.suppress(_Nobody):
                return await self._other(body, role, asked, "escalate")
        raise _Nobody

    async def _other(self, body: dict[str, Any], role: str, but: tuple[Target, ...], purpose: Purpose) -> Answer:
        """Have a role answer; targets in ``but`` are not asked.

        Raises:
            _Nobody: no target of the role can.
            SluiceError: all failed.
        """
        if role not in self.settings.chains:
            raise _Nobody
        left_s = self.ask.deadline - asyncio.get_running_loop().time()
        deadline = self.ask.deadline - min(_MARGIN_S, left_s / 10)  # the draft is in hand: it must still be served
        ask = replace(self.ask, body=body | {"model": role}, deadline=deadline, purpose=purpose)
        try:
            plan = make_plan(ask, self.trace.verdict or Verdict(), self.settings, self.catalog)
        except SluiceError as error:
            raise _Nobody from error
        candidates = tuple(target for target in plan.candidates if target not in but and self._payable(target))
        if not candidates:
            raise _Nobody
        plan = replace(plan, candidates=candidates)
        walk = Walk(ask, plan, self.settings, self.gateway.backends, self.gateway.lanes, self.trace)
        return await walk.first(walk.whole)

    def _payable(self, target: Target) -> bool:
        """Whether what it costs can be held against the key's budget, where it has one."""
        key = self.ask.key
        return key is None or not key.budgeted or self.gateway.prices.estimate_usd(target, 0, 0) is not None

    def _signed(self, draft: Answer, other: Answer) -> Answer:
        """Add the footer where the operator wants one."""
        if not self.settings.attribution_footer or self.plan.on_weak != "polish":
            return other
        body = orjson.loads(other.whole.raw)
        message = body["choices"][0]["message"]
        message["content"] = f"{message['content']}{_FOOTER.format(draft=draft.target, polish=other.target)}"
        return Answer(other.target, Whole(orjson.dumps(body), body, other.whole.headers))


class _Nobody(Exception):  # noqa: N818 - no error: there is nobody to mend the answer
    """No target may be asked to mend the answer."""


def polish_prompt(plan: Plan, settings: Settings) -> str:
    """Return the prompt by which a weak answer of this plan would be polished; empty where it would not be."""
    if not plan.check or plan.on_weak != "polish":
        return ""
    try:
        return prompts.template("polish", settings.prompts_dir)
    except (OSError, ValueError):
        return ""  # then nothing can be polished


def _as_draft(attempt: Attempt) -> Attempt:
    """Say of an answer that a better one took its place."""
    won = attempt.purpose == "answer" and attempt.result == "ok"
    return replace(attempt, purpose="draft") if won else attempt


def _mendable(body: dict[str, Any]) -> bool:
    """Whether another answer could stand in for this one: not for tools or schemas, nor for what a text cannot hold."""
    form = body.get("response_format")
    shaped = isinstance(form, dict) and form.get("type") != "text"
    several = (body.get("n") or 1) > 1
    return not (shaped or several or any(body.get(name) for name in ("tools", "functions", "logprobs", "audio")))


def _polishable(body: dict[str, Any]) -> bool:
    """Whether the polisher, which is given texts only, sees all that was asked."""
    contents = (message.get("content") for message in body["messages"])
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return _mendable(body) and all(part.get("type") in {"text", "refusal"} for part in parts)


def _text(answer: Answer) -> str:
    content = (answer.whole.body["choices"][0].get("message") or {}).get("content")
    return content if isinstance(content, str) else ""


def _limits(body: dict[str, Any]) -> dict[str, Any]:
    """Return what of the caller's own limits holds for the polished answer as well."""
    names = ("max_tokens", "max_completion_tokens", "stop", "user", "seed")
    return {name: body[name] for name in names if body.get(name) is not None}
