"""One task, one set of inputs, one answer that keeps to the contract: asked again with the error, then of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from app.dispatch import Answer
from app.errors import BackendError, Reason, SluiceError
from app.pipeline import run
from app.prompts import render
from app.prompts.spec import PromptError
from app.tasks import language
from app.tasks.context import Done, added, hints_of, sub_call
from app.tasks.contract import Broken, Good, judge
from app.tasks.schema import bound, shown
from app.trace import Answered, Usage
from app.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.call import Ask, Target
    from app.prompts.spec import Task
    from app.tasks.context import Context
    from app.tasks.language import Detected
    from app.trace import Trace

_MOST_TRIES = 8
"""Answers that break the contract before the call is given up, whoever gave them."""
_MOST_SHOWN = 6000
"""Characters of a bad answer that the model is shown again."""
_KEPT = ("temperature", "top_p", "seed", "user", "max_tokens", "max_completion_tokens", "reasoning_effort")
"""What of the caller's own wishes goes with each call of a task."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task with inputs, ready to be asked of anybody.

    Attributes:
        ask: with the messages, the format and the hints; its model is the task's role.
        expected: the language that the answer is to be in, where the task cares and it is sure.
    """

    task: Task
    values: Mapping[str, Any]
    ask: Ask
    expected: Detected | None = None

    def read(self, text: str, finish: str | None) -> Any:
        """Return the value of an answer.

        Raises:
            ValueError: it breaks the contract, or is in another language than it is to be.
        """
        judged = judge(self.task.spec.output, text, finish, self.values)
        if isinstance(judged, Broken):
            raise ValueError(judged.why)  # noqa: TRY004 - it is the text that is wrong
        if self.task.spec.language_of is not None and language_verdict(self.expected, judged.value)["ok"] is False:
            raise ValueError("it is in another language")
        return judged.value


async def fulfil(context: Context, task: Task, values: Mapping[str, Any], trace: Trace) -> Done:
    """Run a task once, without parts.

    Raises:
        SluiceError: nobody could be asked, or no answer kept to the contract.
    """
    prepared = await asyncio.to_thread(prepare, context, task, values)
    trace.stage("build")
    tries = _Tries(prepared)
    while tries.count < _MOST_TRIES:
        answer = await _asked(context, tries, trace)
        if answer is None:
            break
        good = await asyncio.to_thread(tries.take, answer)
        trace.stage("check")
        if good is not None:
            trace.answered += tries.answered(answer, trace)
            return good
    return tries.best()


async def _asked(context: Context, tries: _Tries, trace: Trace) -> Answer | None:
    """Ask once more; None where nobody is left, or those who are fail, and an answer is there to speak of.

    Raises:
        SluiceError: the first call failed.
    """
    try:
        answer = await _answered(context, tries.ask(), trace)
    except SluiceError:
        if not tries.count:
            raise
        return None
    if not isinstance(answer, Answer):
        raise TypeError("a plain call got a stream")
    return answer


async def _answered(context: Context, ask: Ask, trace: Trace) -> Any:
    """Run one call; where the only candidate refused the format, which its lane has learned by now, once more."""
    try:
        return await run(ask, context.settings, context.gateway, trace)
    except BackendError as error:
        if error.reason is not Reason.INVALID or "response_format" not in ask.body:
            raise
        body = {name: value for name, value in ask.body.items() if name != "response_format"}
        return await run(replace(ask, body=body), context.settings, context.gateway, trace)


@dataclass(slots=True)
class _Tries:
    """The answers so far, and what is asked next."""

    prepared: Prepared
    count: int = 0
    broke: Counter[Target] = field(default_factory=Counter)
    usages: list[Usage] = field(default_factory=list)
    why: str = ""
    shown: list[dict[str, str]] = field(default_factory=list)
    spare: Done | None = None

    def ask(self) -> Ask:
        """Return the next call: with the last error, or of those who have not broken the contract so often."""
        ask, sub = self.prepared.ask, self.prepared.ask.sub
        limit = self.prepared.task.spec.retries
        but = tuple(target for target, times in self.broke.items() if times > limit)
        if sub is None:
            raise TypeError("a task's call says which task it is")
        return replace(
            ask,
            body={**ask.body, "messages": [*ask.body["messages"], *self.shown]},
            sub=replace(sub, but=but),
        )

    def take(self, answer: Answer) -> Done | None:
        """Judge an answer; None where another is to be asked for."""
        self.count += 1
        choice = answer.whole.body["choices"][0]
        text, finish = _text(choice), choice.get("finish_reason") or "stop"
        self.usages.append(read_usage(answer.whole.body.get("usage")) or Usage(estimated=True))
        judged = judge(self.prepared.task.spec.output, text, finish, self.prepared.values)
        if isinstance(judged, Good):
            done = Done(judged.value, answer.target, added(self.usages), finish, self._told(judged))
            if self.spare is not None or done.told.get("language", {}).get("ok") is not False:
                return done
            self.spare = done
            judged = Broken(self._other_language())
        self._reject(answer.target, text, judged.why)
        return None

    def answered(self, answer: Answer, trace: Trace) -> list[Answered]:
        """Return what was answered, with the contract that another answer would be judged by."""
        role = trace.plan.role if trace.plan is not None else None
        if role is None:
            return []
        choice, task = answer.whole.body["choices"][0], self.prepared.task
        return [
            Answered(
                self.prepared.ask.body,
                role,
                answer.target,
                _text(choice),
                choice.get("finish_reason"),
                trace.verdict,
                read_usage(answer.whole.body.get("usage")),
                task.name,
                task.digest,
                self.prepared.read if task.spec.output.wanted is not None else None,
            )
        ]

    def _told(self, good: Good) -> dict[str, Any]:
        told: dict[str, Any] = {"repaired": good.repaired, "tries": self.count}
        if self.prepared.task.spec.language_of is not None:
            told["language"] = language_verdict(self.prepared.expected, good.value)
        return told

    def _other_language(self) -> str:
        name = self.prepared.expected.name if self.prepared.expected is not None else language.UNKNOWN
        return f"The answer is in the wrong language: every text in it must be in {name}."

    def _reject(self, target: Target, text: str, why: str) -> None:
        """Remember what was wrong; a target that has had its tries is followed by one that begins afresh."""
        self.why = why
        self.broke[target] += 1
        told = f"{why} Answer again, keeping to the contract, with nothing else."
        spent = self.broke[target] > self.prepared.task.spec.retries
        turns = [("assistant", text[:_MOST_SHOWN] or "(nothing)"), ("user", told)]
        self.shown = [] if spent else [{"role": role, "content": content} for role, content in turns]

    def best(self) -> Done:
        """Return the answer that was right but for its language.

        Raises:
            SluiceError: there is none: the violation.
        """
        if self.spare is not None:
            return self.spare
        asked = ", ".join(str(target) for target in self.broke)
        tried = f"{self.count} tries of {asked}"
        error = SluiceError(
            f"task/{self.prepared.task.name}: no answer kept to the contract ({tried}). {self.why}",
            status=502,
            code="contract_violation",
            fault="backend_contract",
        )
        error.final = True
        raise error


def prepare(context: Context, task: Task, values: Mapping[str, Any]) -> Prepared:
    """Render a task's prompt and make the call of it.

    Raises:
        SluiceError: the template fails on these inputs.
    """
    found = _language_of(task, values)
    likely = found if found is not None and found.likely else None
    told = {"language": likely.name if likely else language.UNKNOWN, "language_code": likely.code if likely else ""}
    try:
        messages = render.messages(task, values, told, _addendum(task))
    except PromptError as error:
        told_so = f"task/{task.name} cannot be rendered: {error}"
        raise SluiceError(told_so, status=500, code="task_broken", fault="policy_not_configured") from error
    sure = found if found is not None and found.sure else None
    return Prepared(task, values, _sub_ask(context.ask, task, messages, values), sure)


def _sub_ask(ask: Ask, task: Task, messages: list[dict[str, str]], values: Mapping[str, Any]) -> Ask:
    body = {name: value for name in _KEPT if (value := ask.body.get(name)) is not None}
    if task.spec.temperature is not None:
        body.setdefault("temperature", task.spec.temperature)
    if task.spec.max_tokens is not None and "max_completion_tokens" not in body:
        body.setdefault("max_tokens", task.spec.max_tokens)
    body |= {"model": task.spec.role, "messages": messages}
    if task.spec.output.wanted is not None:
        body["response_format"] = _format(task, values)
    return replace(ask, body=body, hints=hints_of(ask.hints), native=None, sub=sub_call(task))


def _format(task: Task, values: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {"name": task.name.replace("-", "_"), "strict": True, "schema": bound(task.spec.output.wanted, values)}
    return {"type": "json_schema", "json_schema": wanted}


def _addendum(task: Task) -> str:
    """Return what the prompt says of the form, for models that no schema constrains."""
    if task.spec.output.wanted is None:
        return ""
    schema = orjson.dumps(shown(task.spec.output.wanted)).decode()
    told = "Answer with one JSON object and nothing else, no code fence around it. It keeps to this JSON schema:"
    return f"{told}\n{schema}"


def _language_of(task: Task, values: Mapping[str, Any]) -> Detected | None:
    name = task.spec.language_of
    return language.detect(str(values[name] or "")) if name is not None else None


def language_verdict(expected: Detected | None, value: Any) -> dict[str, Any]:
    """Say which language was expected, which the answer is in, and whether that is right; None where it is not sure."""
    found = language.detect("\n".join(_texts(value)))
    sure = expected is not None and found is not None and found.sure
    return {
        "expected": expected.code if expected is not None else None,
        "answer": found.code if found is not None else None,
        "ok": found.code == expected.code if sure and expected and found else None,
    }


def _texts(value: Any) -> list[str]:
    """Return the sentences in a value: strings of several words, at any depth."""
    if isinstance(value, str):
        return [value] if " " in value.strip() else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _texts(each)]


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message") or {}
    content = message.get("content") or message.get("refusal")
    return content if isinstance(content, str) else ""
