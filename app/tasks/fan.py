"""A list worked through in parts: so many at once, failed parts again, and every item accounted for."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import BackendError, CallerError, PolicyError, SluiceError
from app.guard.gate import Full
from app.tasks.context import Done, added, number
from app.tasks.fulfil import fulfil
from app.tasks.inputs import check_ids
from app.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.prompts.spec import FanOut, Task
    from app.tasks.context import Context

_FIRST_WAIT_S = 0.2
_MOST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """What came of one part of the list.

    Attributes:
        ids: of its items.
        failures: errors that it lost to before.
    """

    ids: tuple[Any, ...]
    trace: Trace
    done: Done | None
    failures: tuple[SluiceError, ...] = ()


async def fan_out(context: Context, task: Task, fan: FanOut, values: Mapping[str, Any], trace: Trace) -> Done:
    """Run a task over its list in parts.

    Raises:
        SluiceError: not one part succeeded.
    """
    check_ids(values, fan.over, fan.id)
    most = len(values[fan.over]) if fan.most is None else int(number(context.settings, fan.most))
    items, beyond = values[fan.over][:most], values[fan.over][most:]
    chunks = [items[at : at + fan.chunk_size] for at in range(0, len(items), fan.chunk_size)]
    trace.stage("build")
    parts = await _all(context, task, fan, values, chunks)
    for part in parts:
        trace.adopt(part.trace)
    trace.stage("answer")
    return _merged(parts, [item[fan.id] for item in beyond])


async def _all(
    context: Context, task: Task, fan: FanOut, values: Mapping[str, Any], chunks: list[list[Any]]
) -> list[Part]:
    free = asyncio.Semaphore(int(number(context.settings, fan.parallel)))
    ended = 0

    async def work(chunk: list[Any]) -> Part:
        nonlocal ended
        async with free:
            part = await _part(context, task, fan, {**values, fan.over: chunk})
        ended += 1
        if len(chunks) > 1:
            state = "failed" if part.done is None else "ok"
            await context.tell({"task": task.name, "parts": len(chunks), "ended": ended, "last": state})
        return part

    async with asyncio.TaskGroup() as group:
        works = [group.create_task(work(chunk)) for chunk in chunks]
    return [each.result() for each in works]


async def _part(context: Context, task: Task, fan: FanOut, values: Mapping[str, Any]) -> Part:
    """Run one part, again where a backend failed."""
    ids = tuple(item[fan.id] for item in values[fan.over])
    trace, failures = Trace(), list[SluiceError]()
    while True:
        try:
            return Part(ids, trace, await fulfil(context, task, values, trace), tuple(failures))
        except SluiceError as error:
            failures.append(error)
        wait_s = _wait_s(context, failures, fan.retries)
        if wait_s is None:
            return Part(ids, trace, None, tuple(failures))
        await asyncio.sleep(wait_s)
        trace.stage("retry")


def _wait_s(context: Context, failures: list[SluiceError], retries: int) -> float | None:
    """Return the seconds until a part is tried again, None where that makes no sense."""
    error = failures[-1]
    if len(failures) > retries or isinstance(error, CallerError | PolicyError) or not _may_pass(error):
        return None
    backoff_s = random.uniform(0.5, 1.0) * _FIRST_WAIT_S * 2 ** len(failures)  # noqa: S311 - jitter
    wait_s = max(backoff_s, error.retry_after_s or 0.0)
    left_s = context.ask.deadline - asyncio.get_running_loop().time()
    return wait_s if wait_s <= min(_MOST_WAIT_S, left_s) else None


def _may_pass(error: SluiceError) -> bool:
    return isinstance(error, BackendError | Full) or error.fault in {"backend_open", "backend_contract"}


def _merged(parts: list[Part], beyond: list[Any]) -> Done:
    good = [part.done for part in parts if part.done is not None]
    if not good:
        raise parts[0].failures[-1]
    failed = [part for part in parts if part.done is None]
    value = merge([done.value for done in good])
    if isinstance(value, dict):
        value |= {"failed_chunks": [_failure(part) for part in failed]} if failed else {}
        value |= {"left_out": beyond} if beyond else {}
    told = {"items": _account(parts, beyond), **_languages(good)}
    finish = "length" if any(done.finish == "length" for done in good) else "stop"
    return Done(value, good[0].target, added([done.usage for done in good]), finish, told)


def merge(values: list[Any]) -> Any:
    """Unite the values of several parts: lists and texts one after the other; of the rest the first."""
    if not all(isinstance(value, dict) for value in values):
        return "\n\n".join(str(value) for value in values)
    return {name: _united([value[name] for value in values if name in value]) for name in values[0]}


def _united(values: list[Any]) -> Any:
    if all(isinstance(each, list) for each in values):
        return [item for each in values for item in each]
    return "\n".join(values) if all(isinstance(each, str) for each in values) else values[0]


def _failure(part: Part) -> dict[str, Any]:
    return {"ids": list(part.ids), "error": part.failures[-1].message}


def _account(parts: list[Part], beyond: list[Any]) -> dict[str, Any]:
    """Say what became of every item."""
    done = sum(len(part.ids) for part in parts if part.done is not None)
    failed = [each for part in parts if part.done is None for each in part.ids]
    return {
        "total": done + len(failed) + len(beyond),
        "done": done,
        "failed": failed,
        "left_out": beyond,
        "parts": len(parts),
        "parts_retried": [number for number, part in enumerate(parts, 1) if part.failures],
    }


def _languages(good: list[Done]) -> dict[str, Any]:
    """Return the worst verdict on the language among the parts."""
    verdicts = [done.told["language"] for done in good if "language" in done.told]
    order = {False: 0, None: 1, True: 2}
    return {"language": min(verdicts, key=lambda each: order[each["ok"]])} if verdicts else {}
