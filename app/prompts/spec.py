"""What a prompt file says: the front matter of a task, the stages of a pipeline. Typed, strict, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
"""Of tasks, pipelines and stages; it stands in URLs, headers and metrics."""
Schema = dict[str, Any]
Setting = Literal["MAP_MAX_PARALLEL", "MEDIUM_SCORE_THRESHOLD", "MEDIUM_MAX_SELECTED_POSTS", "MEDIUM_MAX_POSTS"]
"""Settings that a prompt file may name where it could write a number."""


class PromptError(Exception):
    """A prompt file that cannot be used; the message says what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Select(_Strict):
    """Which entries of a list are selected: those at or over the threshold, the best first, so many at most."""

    at: str
    by: str
    id: str
    threshold: float | Setting
    most: Annotated[int, Field(ge=1)] | Setting


class Sort(_Strict):
    """How a list of the output is ordered: by a field with a closed set of values."""

    at: str
    by: str
    order: tuple[str, ...]


class Output(_Strict):
    """The contract of an answer.

    Attributes:
        format: what the caller gets: JSON, or text or Markdown.
        wanted: the JSON schema of the model's answer; with ``x-one-of`` and ``x-for-each`` it is bound to the inputs of
            each call. Text and Markdown may do without.
        parser: how text and value become each other: ``scores``, or ``field:<name>`` for one field of the value.
        checks: names of the quality check whose faults break the contract.
    """

    format: Literal["json_schema", "markdown", "text"] = "text"
    wanted: Schema | None = Field(None, alias="schema")
    parser: str | None = Field(None, pattern=r"^(scores|field:\w+)$")
    checks: tuple[str, ...] = ()
    select: Select | None = None
    sort: Sort | None = None


class FanOut(_Strict):
    """A list that is worked through in parts.

    Attributes:
        over: the input that is the list; id: the field by which its items are named in reports.
        chunk_size: items a part.
        parallel: parts at once.
        most: items that are worked on; those beyond are reported as left out.
        retries: how often a part is tried again after the calls for it failed.
    """

    over: str
    id: str
    chunk_size: int = Field(20, ge=1, le=1000)
    parallel: Annotated[int, Field(ge=1, le=64)] | Setting = "MAP_MAX_PARALLEL"
    most: Annotated[int, Field(ge=1)] | Setting | None = None
    retries: int = Field(2, ge=0, le=5)


class TaskFile(_Strict):
    """The front matter of ``prompts/<name>.md``.

    Attributes:
        role: whose models answer; ``auto`` goes by the complexity.
        kind: what the verdict says; complexity: 1 to 10; both classified where absent.
        inputs: by name, each a JSON schema; one with ``default`` or ``optional: true`` may be left out.
        input: the one that a plain user message gives; by default ``input``, else the only one.
        language_of: the input whose language the answer is to be in.
        retries: how often one model is asked again, with what was wrong, after an answer that broke the contract.
        timeout_s: seconds for the whole task, within the call's deadline.
    """

    description: str = ""
    role: str = "auto"
    kind: str | None = None
    complexity: int | None = Field(None, ge=1, le=10)
    inputs: dict[Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")], Schema]
    input: str = ""
    language_of: str | None = None
    output: Output = Output()
    fan_out: FanOut | None = None
    retries: int = Field(1, ge=0, le=3)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    timeout_s: float | None = Field(None, gt=0)


class Stage(_Strict):
    """One stage of a pipeline.

    Attributes:
        task: the task that it runs.
        inputs: by the task's names: ``inputs.<name>`` or ``stages.<stage>`` with further fields after dots; with a
            ``?`` at the end what is not there, or whose stage failed, is left out.
        optional: whether the pipeline is a success without it.
        after: stages that it waits for beyond those that its inputs name.
        timeout_s: seconds for this stage, within the call's deadline.
    """

    task: Name
    inputs: dict[str, Annotated[str, StringConstraints(pattern=r"^(inputs|stages)(\.[\w-]+)+\??$")]]
    optional: bool = False
    after: tuple[Name, ...] = ()
    timeout_s: float | None = Field(None, gt=0)


class PipelineFile(_Strict):
    """``prompts/pipelines/<name>.yaml``; ``output`` names the stage whose output is the pipeline's own."""

    description: str = ""
    inputs: dict[str, Schema]
    stages: dict[Name, Stage] = Field(min_length=1)
    output: Name

    @field_validator("stages")
    @classmethod
    def _bounded(cls, stages: dict[str, Stage]) -> dict[str, Stage]:
        if len(stages) > 32:  # noqa: PLR2004 - a pipeline is a handful of stages, not a program
            raise ValueError("a pipeline has at most 32 stages")
        return stages


@dataclass(frozen=True, slots=True)
class Task:
    """A task that can be called.

    Attributes:
        digest: of the file, 12 hexadecimal digits; it names the version.
        system: template of the system message, empty where there is none; user: of the user message.
    """

    name: str
    digest: str
    spec: TaskFile
    system: str
    user: str

    @property
    def version(self) -> str:
        """The name and the version, as ``x-sluice-prompt`` tells them."""
        return f"{self.name}@{self.digest}"

    @property
    def primary(self) -> str | None:
        """The input that a plain user message gives, None where there is no such one."""
        if self.spec.input or "input" in self.spec.inputs:
            return self.spec.input or "input"
        needed = [name for name, schema in self.spec.inputs.items() if not may_be_left_out(schema)]
        return needed[0] if len(needed) == 1 else None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that can be called; ``digest`` is of its file and of its tasks'.

    Attributes:
        waits: for each stage, those that must have ended before it begins.
    """

    name: str
    digest: str
    spec: PipelineFile
    tasks: dict[str, Task]
    waits: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The name and the version, as ``x-sluice-prompt`` tells them."""
        return f"{self.name}@{self.digest}"


def may_be_left_out(schema: Schema) -> bool:
    """Whether an input has a default, or is optional."""
    return "default" in schema or schema.get("optional") is True


def trusted(schema: Schema) -> bool:
    """Whether an input can only hold what the prompt file itself allows, so that it may stand in the system message."""
    if "enum" in schema or "const" in schema:
        return True
    kind = schema.get("type")
    return isinstance(kind, str) and kind in {"integer", "number", "boolean"}
