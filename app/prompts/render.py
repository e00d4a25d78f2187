"""Templates and the messages that become of them: Jinja2 in its sandbox. Inputs are data, whatever they say.

- Inputs never are template source, so that Jinja syntax in them is text.
- The system message is made only of the file's own words, of inputs with a closed set of values, and of what Sluice
  itself works out. ``check`` refuses a file that puts anything else there.
- In the user message data stands between fences: marks that follow from the inputs by a hash, so that no input can hold
  the one of its own call. Lists and objects are written as JSON, and the role markers of chat templates are broken.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from app.prompts.spec import PromptError, trusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from app.prompts.spec import Task

WORKED_OUT = frozenset({"fence", "language", "language_code"})
"""What every template may use besides its inputs: the fence, the name and the code of the answer's language."""
_MARKER = re.compile(
    r"<(?=\|[\w :/.-]{1,64}\|>)"  # ChatML, Phi, Llama 3, Zephyr: <|im_start|>, <|system|>, <|eot_id|>
    r"|<(?=/?(?:start_of_turn|end_of_turn|s|bos|eos|think)>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\])"
    "|<(?=\uff5c[^\uff5c]{1,64}\uff5c>)",
    re.IGNORECASE,
)
_REMOVED = "[removed]"


class Fence(str):
    """The mark between which data stands; the one string that is written as it is."""

    __slots__ = ()


def fence_of(values: Mapping[str, Any]) -> Fence:
    """Return the fence of these inputs: always the same for the same, and found by nobody for texts that hold it."""
    raw = orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    return Fence(f"<<{hashlib.blake2b(raw, digest_size=9).hexdigest()}>>")


def written(value: Any, fence: str) -> str:
    """Return a value as it stands in a prompt: text as it is, else JSON; no fence and no role marker is left in it."""
    if isinstance(value, Fence):
        return value
    text = value if isinstance(value, str) else _json(value)
    return _MARKER.sub(lambda found: f"{found.group()} ", text.replace(fence, _REMOVED))


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    @pass_context
    def finalize(context: Context, value: Any) -> Any:
        if isinstance(value, StrictUndefined):
            return value  # it raises when it is written
        return written(value, context.get("fence", _REMOVED))

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=finalize, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.clear()
    return environment


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


def names(source: str) -> frozenset[str]:
    """Return the variables that a template uses.

    Raises:
        PromptError: it is no template, or reads others.
    """
    from jinja2 import TemplateError, meta

    try:
        tree = _environment().parse(source)
        _compiled(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise PromptError(f"the template is broken: {error.message}" + (f" (line {line})" if line else "")) from error
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise PromptError("the template must not include, import or extend others")
    return frozenset(meta.find_undeclared_variables(tree))


def check(task: Task) -> None:
    """Judge a task's templates.

    Raises:
        PromptError: one is broken, uses what is no input, or has an input that could hold anything in the system part.
    """
    inputs = task.spec.inputs
    safe = {name for name, schema in inputs.items() if trusted(schema)}
    for part, allowed in ((task.system, safe), (task.user, {*inputs})):
        if unknown := names(part) - allowed - WORKED_OUT:
            name = min(unknown)
            raise PromptError(
                f"the system part must not use {name!r}: it could hold anything; only inputs with an enum, numbers and "
                "true or false may stand there"
                if name in inputs
                else f"the template uses {name!r}, which is no input"
            )


def messages(
    task: Task, values: Mapping[str, Any], told: Mapping[str, Any], addendum: str = ""
) -> list[dict[str, str]]:
    """Return the messages of a call.

    Args:
        task: whose.
        values: every input.
        told: what Sluice worked out: ``language`` and ``language_code``.
        addendum: what is added to the system message, or, where there is none, to the user's.

    Raises:
        PromptError: the template fails on these inputs.
    """
    everything = {**values, **told, "fence": fence_of(values)}
    parts = [_rendered(task.system, everything), _rendered(task.user, everything)]
    first = 0 if parts[0] else 1
    parts[first] = f"{parts[first]}\n\n{addendum}".strip()
    return [
        {"role": role, "content": content} for role, content in zip(("system", "user"), parts, strict=True) if content
    ]


def _rendered(source: str, values: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        return _compiled(source).render(values).strip()
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise PromptError(f"the template fails: {type(error).__name__}: {error}") from error
