"""A pipeline: each stage begins as soon as those it waits for have ended, and one that fails takes no other along."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import SluiceError
from app.tasks.inputs import complete
from app.tasks.single import run_task
from app.trace import Trace

if TYPE_CHECKING:
    from app.prompts.spec import Pipeline, Stage
    from app.tasks.context import Context, Done

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage ended.

    Attributes:
        status: ``ok``, ``failed``, or ``skipped`` where a stage that it needs did not succeed.
    """

    status: str
    trace: Trace
    done: Done | None = None
    error: SluiceError | None = None


@dataclass(slots=True)
class _Run:
    """One run of a pipeline."""

    context: Context
    pipeline: Pipeline
    values: dict[str, Any]
    ended: dict[str, Ended] = field(default_factory=dict)
    signals: dict[str, asyncio.Event] = field(default_factory=dict)

    async def stage(self, name: str) -> None:
        """Run one stage when its turn has come."""
        for other in self.pipeline.waits[name]:
            await self.signals[other].wait()
        await self._tell(name, "begun")
        self.ended[name] = ended = await self._one(name, Trace())
        self.signals[name].set()
        await self._tell(name, ended.status)

    async def _one(self, name: str, trace: Trace) -> Ended:
        stage, task = self.pipeline.spec.stages[name], self.pipeline.tasks[name]
        context = self.context
        if stage.timeout_s is not None:
            context = context.until(asyncio.get_running_loop().time() + stage.timeout_s)
        try:
            given = self._inputs(stage)
            values = await asyncio.to_thread(complete, given, task.spec.inputs)
            return Ended("ok", trace, await run_task(context, task, values, trace))
        except _NotThere as missing:
            return Ended("skipped", trace, error=SluiceError(str(missing), status=424, code="stage_skipped"))
        except SluiceError as error:
            return Ended("failed", trace, error=error)
        finally:
            trace.stage("check")

    def _inputs(self, stage: Stage) -> dict[str, Any]:
        """Return the inputs of a stage from those of the call and from what other stages gave.

        Raises:
            _NotThere: one that it needs is not there.
        """
        found = {}
        for name, reference in stage.inputs.items():
            value = self._resolved(reference.removesuffix("?").split("."))
            if value is not _MISSING:
                found[name] = value
            elif not reference.endswith("?"):
                raise _NotThere(f"{reference} is not there")
        return found

    def _resolved(self, path: list[str]) -> Any:
        where, first, *fields = path
        if where == "inputs":
            value = self.values[first]
        else:
            done = self.ended[first].done
            value = _MISSING if done is None else done.value
        for name in fields:
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        return value

    async def _tell(self, name: str, state: str) -> None:
        await self.context.tell({"pipeline": self.pipeline.name, "stage": camel(name), "state": state})


class _NotThere(Exception):  # noqa: N818 - no error of its own: it is told as the stage's
    """A stage needs what another stage did not give."""


async def run_stages(context: Context, pipeline: Pipeline, values: dict[str, Any], trace: Trace) -> dict[str, Ended]:
    """Run all stages of a pipeline, and return how each ended.

    Raises:
        SluiceError: not one stage succeeded: the error of the first that failed.
    """
    run = _Run(context, pipeline, values, signals={name: asyncio.Event() for name in pipeline.spec.stages})
    trace.stage("build")
    async with asyncio.TaskGroup() as group:
        for name in pipeline.spec.stages:
            group.create_task(run.stage(name))
    trace.stage("answer")
    ended = {name: run.ended[name] for name in pipeline.spec.stages}
    for each in ended.values():
        trace.adopt(each.trace)
    if not any(each.done for each in ended.values()):
        raise next(each.error for each in ended.values() if each.error is not None)
    return ended


def report(pipeline: Pipeline, ended: dict[str, Ended], wall_ms: float) -> dict[str, Any]:
    """Return the result of a pipeline: each stage's output, the errors, and where the time went."""
    stages = pipeline.spec.stages
    output = ended[pipeline.spec.output].done
    bad = [name for name, each in ended.items() if each.status != "ok" and not stages[name].optional]
    performance = {camel(name): each.trace.split_ms() for name, each in ended.items()}
    return {
        "pipeline": pipeline.name,
        "ok": not bad,
        "output": None if output is None else output.value,
        "stages": {camel(name): _told(pipeline, name, each) for name, each in ended.items()},
        "errors": [_error(name, each) for name, each in ended.items() if each.error is not None],
        "performance": {**performance, "totalMs": round(wall_ms, 3)},
    }


def _told(pipeline: Pipeline, name: str, each: Ended) -> dict[str, Any]:
    return {
        "status": each.status,
        "output": None if each.done is None else each.done.value,
        "target": None if each.done is None else str(each.done.target),
        "prompt": pipeline.tasks[name].version,
    }


def _error(name: str, each: Ended) -> dict[str, Any]:
    error = each.error or SluiceError("unknown")
    return {"stage": camel(name), "message": error.message, "type": error.type, "code": error.code}


def camel(name: str) -> str:
    """Return a stage's name as JSON's writers like it: ``usage-summary`` is ``usageSummary``."""
    return re.sub(r"-(\w)", lambda found: found.group(1).upper(), name)
