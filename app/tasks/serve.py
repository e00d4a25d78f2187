"""The way in: a call of ``task/<name>`` or ``pipeline/<name>`` is served here; every other goes on to the pipeline."""

from __future__ import annotations

import asyncio
import difflib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import Whole
from app.call import Target
from app.dispatch import Answer
from app.errors import CallerError, SluiceError
from app.pipeline import run
from app.prompts.library import PIPELINE, TASK
from app.prompts.spec import Task
from app.replay import Replay
from app.tasks.context import Context, Done, added
from app.tasks.contract import written

if TYPE_CHECKING:
    from app.call import Ask
    from app.gateway import Gateway
    from app.prompts.library import Shelf
    from app.prompts.spec import Pipeline
    from app.recall import AnyAnswer
    from app.settings import Settings
    from app.tasks.context import Tell
    from app.trace import Trace


async def quiet(_: dict[str, Any]) -> None:
    """Tell nobody of the progress."""


def is_named(ask: Ask) -> bool:
    """Whether a call names a task or a pipeline."""
    model = ask.body.get("model")
    return model is not None and ask.endpoint == "chat" and model.startswith((TASK, PIPELINE))


async def serve(ask: Ask, settings: Settings, gateway: Gateway, trace: Trace, tell: Tell = quiet) -> AnyAnswer:
    """Serve any call.

    Args:
        ask: the call.
        settings: the one snapshot that this call sees.
        gateway: what all calls share.
        trace: told every stage and all attempts.
        tell: told the progress of a task or a pipeline, as chunks without choices.

    Raises:
        SluiceError: what the caller is to be told.
    """
    if not is_named(ask):
        return await run(ask, settings, gateway, trace)
    context = Context(ask, settings, gateway, await gateway.library.shelf(), tell)
    context = replace(context, tell=_telling(context, tell))
    found = find(ask.body["model"], context.shelf)
    trace.task, trace.prompt_hash = found.name, found.digest
    answer = await (_task(context, found, trace) if isinstance(found, Task) else _pipeline(context, found, trace))
    return Replay(answer) if ask.stream and isinstance(answer, Answer) else answer


def find(model: str, shelf: Shelf) -> Task | Pipeline:
    """Return what a model's name stands for.

    Raises:
        SluiceError: 404, there is no such task or pipeline; 503, its file is broken.
    """
    kind, _, name = model.partition("/")
    there = shelf.tasks if f"{kind}/" == TASK else shelf.pipelines
    if name in there:
        return there[name]
    if model in shelf.broken:
        raise SluiceError(
            f"{model} is out of use until its file is mended: {shelf.broken[model]}",
            status=503,
            code="task_broken",
            fault="policy_not_configured",
        )
    near = difflib.get_close_matches(name[:64], there, n=1)
    raise CallerError(
        f"There is no {model!r}." + (f" Did you mean {kind}/{near[0]}?" if near else " GET /v1/models lists all."),
        status=404,
        code="model_not_found",
        param="model",
        fault="caller_unknown_model",
    )


async def _task(context: Context, task: Task, trace: Trace) -> AnyAnswer:
    from app.tasks.inputs import given  # with jsonschema, which only calls of tasks need
    from app.tasks.single import content_of, run_task

    values = await asyncio.to_thread(given, context.ask.body, task.spec.inputs, task.primary)
    if _streams_through(context, task):
        return await _streamed(context, task, values, trace)
    done = await run_task(context, task, values, trace)
    content = content_of(task, done.value, context.ask.body.get("response_format"))
    told = {"task": task.name, "prompt": task.version, **done.told}
    return _answer(context, done, content, {**told, **_left_out(context)}, done.target.model)


def _streams_through(context: Context, task: Task) -> bool:
    """Whether an answer is free text that may reach the caller word by word, as it comes."""
    free = task.spec.output.wanted is None and task.spec.fan_out is None
    formatted = (context.ask.body.get("response_format") or {}).get("type") not in {None, "text"}
    return context.ask.stream and free and not formatted and context.settings.polish_streams == "off"


async def _streamed(context: Context, task: Task, values: dict[str, Any], trace: Trace) -> AnyAnswer:
    from app.tasks.fulfil import prepare

    ask = (await asyncio.to_thread(prepare, context, task, values)).ask
    trace.stage("build")
    wishes: dict[str, Any] = {
        name: context.ask.body[name] for name in ("stream", "stream_options") if name in context.ask.body
    }
    return await run(replace(ask, body={**ask.body, **wishes}), context.settings, context.gateway, trace)


async def _pipeline(context: Context, pipeline: Pipeline, trace: Trace) -> Answer:
    from app.tasks.inputs import given
    from app.tasks.stages import report, run_stages

    began = time.perf_counter()
    values = await asyncio.to_thread(given, context.ask.body, pipeline.spec.inputs, None)
    ended = await run_stages(context, pipeline, values, trace)
    told = report(pipeline, ended, (time.perf_counter() - began) * 1000)
    good = [each.done for each in ended.values() if each.done is not None]
    done = Done(told, good[-1].target, added([each.usage for each in good]))
    beside = {"pipeline": pipeline.name, "prompt": pipeline.version, "performance": told["performance"]}
    content = written(told)
    return _answer(context, done, content, {**beside, **_left_out(context)}, f"{PIPELINE}{pipeline.name}")


def _left_out(context: Context) -> dict[str, Any]:
    from app.tasks.inputs import turns_left_out

    dropped = turns_left_out(context.ask.body)
    return {"dropped_turns": dropped} if dropped else {}


def _answer(context: Context, done: Done, content: str, told: dict[str, Any], model: str) -> Answer:
    """Return a chat completion that holds the content; ``sluice`` holds what there is to tell beside it."""
    usage = done.usage
    body = {
        **_head(context, model),
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": done.finish,
            }
        ],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        },
        "sluice": told,
    }
    return Answer(Target(done.target.backend, done.target.model), Whole(orjson.dumps(body), body))


def _telling(context: Context, tell: Tell) -> Tell:
    """Have progress told as chunks of this call."""
    head = {**_head(context, context.ask.body["model"]), "object": "chat.completion.chunk", "choices": []}

    async def told(progress: dict[str, Any]) -> None:
        await tell({**head, "sluice": {"progress": progress}})

    return told


def _head(context: Context, model: str) -> dict[str, Any]:
    """Return what all chunks share; where some were told before anybody had answered, the model is the task's name."""
    ask = context.ask
    early = ask.stream and ask.hints.progress
    model = ask.body["model"] if early else model
    return {"id": f"chatcmpl-{ask.request_id}", "created": context.created, "model": model}
