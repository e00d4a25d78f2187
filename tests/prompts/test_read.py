from __future__ import annotations

import pytest

from app.prompts.read import read_pipeline, read_task
from app.prompts.spec import PromptError

_INPUTS = "inputs: {text: {type: string}, tone: {enum: [warm, cold]}, list: {type: array}}"
_GOOD = f"---\nrole: fast\n{_INPUTS}\n---\nBe {{{{ tone }}}}.\n<!-- user -->\n{{{{ text }}}}\n"


def _task(front: str = "", body: str = "{{ text }}") -> str:
    return f"---\n{_INPUTS}\n{front}\n---\n{body}\n"


def test_a_task_is_its_front_matter_and_two_templates() -> None:
    task = read_task("mine", _GOOD)
    assert (task.system, task.user) == ("Be {{ tone }}.", "{{ text }}")
    assert (task.spec.role, task.spec.complexity, task.spec.output.format) == ("fast", None, "text")
    assert task.version == f"mine@{task.digest}"
    assert read_task("mine", _GOOD.replace("Be", "Stay")).digest != task.digest


def test_line_ends_of_other_systems_are_line_ends() -> None:
    task = read_task("mine", _GOOD.replace("\n", "\r\n"))
    assert (task.system, task.user) == ("Be {{ tone }}.", "{{ text }}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no front matter", "no front matter"),
        ("---\n- a list\n---\nx", "mapping"),
        ("---\n{\n---\nx", "not YAML"),
        ("---\n!!python/object/apply:os.system [echo]\n---\nx", "not YAML"),
        (_task("colour: red"), "colour: there is no such key"),
        (_task("complexity: 11"), "complexity"),
        (_task("output: {format: json_schema}"), "output.schema is missing"),
        (_task("output: {format: text, schema: {type: object}}"), "output.parser is missing"),
        (_task("output: {format: json_schema, schema: {type: thing}}"), "no JSON schema"),
        (_task("output: {format: json_schema, schema: {x-one-of: nothing.id}}"), "nothing.id"),
        (_task("input: other"), "no input 'other'"),
        (_task("fan_out: {over: other, id: id}"), "no input 'other'"),
        (_task("fan_out: {over: list, id: id, parallel: SHUTDOWN_S}"), "fan_out.parallel"),
        (_task(body=""), "no text"),
        (_task(body="{{ text"), "template is broken"),
        (_task(body="{% include 'secret' %}{{ text }}"), "must not include"),
        (_task(body="{{ other }}"), "'other', which is no input"),
        (_task(body="You know that {{ text }}.\n<!-- user -->\nx"), "system part must not use 'text'"),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(PromptError, match=told):
        read_task("mine", text)


_PIPELINE = """
inputs: {text: {type: string}}
stages:
  one: {task: mine, inputs: {text: inputs.text}}
  two: {task: mine, inputs: {text: stages.one.title?}, after: [three]}
  three: {task: mine, inputs: {text: inputs.text?}}
output: two
"""


def test_a_pipeline_knows_who_waits_for_whom() -> None:
    tasks = {"mine": read_task("mine", _GOOD)}
    pipeline = read_pipeline("line", _PIPELINE, tasks)
    assert pipeline.waits == {"one": frozenset(), "two": {"one", "three"}, "three": frozenset()}
    other = {"mine": read_task("mine", _GOOD.replace("Be", "Stay"))}
    assert read_pipeline("line", _PIPELINE, other).digest != pipeline.digest


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("task: mine", "task: other", "'other' is not there"),
        ("{text: inputs.text}", "{txt: inputs.text}", "no input 'txt'"),
        ("inputs.text}}", "inputs.txt}}", "no input 'txt'"),
        ("stages.one.title?", "stages.four", "no stage 'four'"),
        ("stages.one.title?", "secrets.one", "stages.two.inputs.text"),
        ("inputs.text?", "stages.two", "wait for each other"),
        ("output: two", "output: four", "no stage 'four'"),
        ("output: two", "", "output"),
    ],
)
def test_what_is_wrong_with_a_pipeline_is_told(old: str, new: str, told: str) -> None:
    text = _PIPELINE.replace(old, new)
    assert text != _PIPELINE
    with pytest.raises(PromptError, match=told):
        read_pipeline("line", text, {"mine": read_task("mine", _GOOD)})
