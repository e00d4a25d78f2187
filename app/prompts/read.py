"""From the text of a prompt file to a task or a pipeline; whatever is wrong with it is one PromptError."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from app.prompts import render
from app.prompts.spec import Pipeline, PipelineFile, PromptError, Task, TaskFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.prompts.spec import Schema

Spec = TypeVar("Spec", TaskFile, PipelineFile)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*\r?\n", re.DOTALL)
_USER = re.compile(r"^<!-- user -->[ \t]*\r?$", re.MULTILINE)
"""The line that parts the system message from the user's; without it all is the user's."""
_ANNOTATION = re.compile(r"^[a-z_][a-z0-9_]*\.\w+$")
ONE_OF, FOR_EACH = "x-one-of", "x-for-each"
"""Keywords that bind a schema to a call's inputs, e.g. ``x-one-of: posts.id``; see app.tasks.schema."""


def read_task(name: str, text: str) -> Task:
    """Read ``prompts/<name>.md``.

    Raises:
        PromptError: with what is wrong.
    """
    found = _FRONT_MATTER.match(text)
    if found is None:
        raise PromptError("it has no front matter: it must begin with a line of three dashes and end it with another")
    spec = _validated(TaskFile, _yaml(found.group(1)))
    parts = _USER.split(text[found.end() :], maxsplit=1)
    system, user = parts if len(parts) > 1 else ("", parts[0])
    task = Task(name, digest(text), spec, system.strip(), user.strip())
    _check_task(task)
    return task


def _check_task(task: Task) -> None:
    spec = task.spec
    if not task.user:
        raise PromptError("it has no text for the user message")
    for name in (spec.input or None, spec.language_of, spec.fan_out and spec.fan_out.over):
        if name is not None and name not in spec.inputs:
            raise PromptError(f"there is no input {name!r}")
    for name, schema in spec.inputs.items():
        _check_schema(schema, f"inputs.{name}")
    _check_output(task)
    render.check(task)


def _check_output(task: Task) -> None:
    output = task.spec.output
    if output.wanted is None:
        if output.format == "json_schema" or output.parser is not None:
            raise PromptError("output.schema is missing")
        return
    if output.format != "json_schema" and output.parser is None:
        raise PromptError("output.parser is missing: it says how the value becomes text")
    _check_schema(output.wanted, "output.schema")
    for reference in references(output.wanted):
        name = reference.partition(".")[0]
        if not _ANNOTATION.match(reference) or name not in task.spec.inputs:
            raise PromptError(f"output.schema: {reference!r} is not <input>.<field>")


def references(schema: Any) -> list[str]:
    """Return what the ``x-`` keywords of a schema refer to, at any depth."""
    if isinstance(schema, list):
        return [found for each in schema for found in references(each)]
    if not isinstance(schema, dict):
        return []
    own = [str(schema[key]) for key in (ONE_OF, FOR_EACH) if key in schema]
    return own + [found for each in schema.values() for found in references(each)]


def _check_schema(schema: Schema, where: str) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise PromptError(f"{where} is no JSON schema: {error.message} at {error.json_path}") from error


def read_pipeline(name: str, text: str, tasks: Mapping[str, Task]) -> Pipeline:
    """Read ``prompts/pipelines/<name>.yaml``.

    Args:
        name: of the pipeline.
        text: of the file.
        tasks: those that its stages may name.

    Raises:
        PromptError: with what is wrong.
    """
    spec = _validated(PipelineFile, _yaml(text))
    missing = sorted({stage.task for stage in spec.stages.values()} - tasks.keys())
    if missing:
        raise PromptError(f"the task {missing[0]!r} is not there, or broken")
    for input_name, schema in spec.inputs.items():
        _check_schema(schema, f"inputs.{input_name}")
    used = {stage: tasks[each.task] for stage, each in spec.stages.items()}
    waits = {stage: _waits(stage, spec, used[stage]) for stage in spec.stages}
    if spec.output not in spec.stages:
        raise PromptError(f"output: there is no stage {spec.output!r}")
    _check_order(waits)
    whole = text + "".join(task.digest for task in used.values())
    return Pipeline(name, digest(whole), spec, used, waits)


def _waits(name: str, spec: PipelineFile, task: Task) -> frozenset[str]:
    """Return the stages that one refers to; what it refers to must be there."""
    stage, found = spec.stages[name], set(spec.stages[name].after)
    for target, reference in stage.inputs.items():
        if target not in task.spec.inputs:
            raise PromptError(f"stage {name}: the task {task.name} has no input {target!r}")
        where, first = reference.removesuffix("?").split(".")[:2]
        if where == "inputs" and first not in spec.inputs:
            raise PromptError(f"stage {name}: there is no input {first!r}")
        if where == "stages":
            found.add(first)
    if unknown := found - spec.stages.keys():
        raise PromptError(f"stage {name}: there is no stage {min(unknown)!r}")
    return frozenset(found)


def _check_order(waits: Mapping[str, frozenset[str]]) -> None:
    left = dict(waits)
    while ready := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ready:
            del left[name]
    if left:
        raise PromptError(f"the stages {', '.join(sorted(left))} wait for each other")


def digest(text: str) -> str:
    """Return what names a version of a file: 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _validated(kind: type[Spec], told: Any) -> Spec:
    if not isinstance(told, dict):
        raise PromptError("it must be a mapping of names to values")
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        what = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise PromptError(f"{path}: {what}") from error


def _yaml(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, loader)  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PromptError(f"it is not YAML: {' '.join(str(error).split())[:300]}") from error
