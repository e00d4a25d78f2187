"""One task from its inputs to its value: in parts or at once, then sorted and selected as its contract says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.tasks.context import Context, Done, number
from app.tasks.contract import written
from app.tasks.fan import fan_out
from app.tasks.fulfil import fulfil
from app.tasks.parsers import parser_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.prompts.spec import Output, Select, Sort, Task
    from app.settings import Settings
    from app.trace import Trace


async def run_task(context: Context, task: Task, values: Mapping[str, Any], trace: Trace) -> Done:
    """Run a task.

    Raises:
        SluiceError: it failed.
    """
    if task.spec.timeout_s is not None:
        context = context.until(asyncio.get_running_loop().time() + task.spec.timeout_s)
    fan = task.spec.fan_out
    if fan is None:
        done = await fulfil(context, task, values, trace)
    else:
        done = await fan_out(context, task, fan, values, trace)
    finish(done.value, task.spec.output, context.settings)
    return done


def finish(value: Any, output: Output, settings: Settings) -> None:
    """Sort and select in a value, in place."""
    if output.sort is not None:
        _sort(value, output.sort)
    if output.select is not None:
        _select(value, output.select, settings)


def _sort(value: Any, sort: Sort) -> None:
    """Order a list; entries of equal rank stay as they came."""
    ranks = {name: rank for rank, name in enumerate(sort.order)}
    value[sort.at].sort(key=lambda item: ranks.get(item[sort.by], len(ranks)))


def _select(value: Any, select: Select, settings: Settings) -> None:
    """Mark the best entries at or over the threshold, and name them, best first."""
    threshold = number(settings, select.threshold)
    enough = [item for item in value[select.at] if item[select.by] >= threshold]
    enough.sort(key=lambda item: -item[select.by])
    selected = [item[select.id] for item in enough[: int(number(settings, select.most))]]
    for item in value[select.at]:
        item["selected"] = item[select.id] in selected
    value |= {"selected": selected, "threshold": threshold}


def content_of(task: Task, value: Any, wanted: Any) -> str:
    """Return a value as the text of an answer: as the task says, or as JSON where the caller asked for that."""
    output = task.spec.output
    as_json = isinstance(wanted, dict) and wanted.get("type") in {"json_object", "json_schema"}
    if output.format == "json_schema" or (as_json and output.wanted is not None):
        return written(value)
    text = parser_of(output.parser).write(value) if output.parser is not None else str(value)
    return written({"text": text}) if as_json else text
