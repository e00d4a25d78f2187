"""Answers to judge the quality check by: good ones from Python's standard library and by hand, bad ones by hand."""

from __future__ import annotations

import importlib
import inspect as python_inspect
import json
import pydoc_data.topics
import sysconfig
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.route.quality import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent.parent / "data" / "quality"

_BODY_FIELDS = ("response_format", "tools", "stop", "max_tokens", "max_completion_tokens")
_MODULES = (
    "argparse bisect calendar collections contextlib copy csv datetime difflib email.message fractions functools glob "
    "gzip heapq html inspect ipaddress itertools json json.decoder logging os.path pathlib pprint queue random re "
    "sched shelve shlex shutil smtplib socket statistics string tempfile textwrap threading tokenize traceback types "
    "unittest.case urllib.parse urllib.robotparser uuid wave xml.dom.minidom zipfile"
)


class Sample(NamedTuple):
    """One ask with an answer, as the checks are given them; ``fault`` is the one on purpose, or None."""

    name: str
    body: dict[str, Any]
    text: str
    kind: str | None
    finish_reason: str | None
    tool_calls: bool = False
    fault: str | None = None

    def faults(self) -> tuple[str, ...]:
        return inspect(
            self.body, self.text, kind=self.kind, finish_reason=self.finish_reason, tool_calls=self.tool_calls
        )


def bad() -> list[Sample]:
    return list(_by_hand("bad.jsonl"))


def good() -> list[Sample]:
    return [*_by_hand("good.jsonl"), *good_from_library()]


def good_from_library() -> list[Sample]:
    return [*_docstrings(), *_topics(), *_sources(), *_json_blocks()]


def _by_hand(name: str) -> Iterator[Sample]:
    for number, line in enumerate((DATA / name).read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        yield Sample(
            f"{name}:{number}",
            _body(row),
            row["answer"],
            row["kind"],
            row["finish_reason"],
            row.get("tool_calls", False),
            row.get("fault"),
        )


def _body(row: dict[str, Any]) -> dict[str, Any]:
    texts = (("system", row.get("system")), ("user", row["ask"]), ("assistant", row.get("prefill")))
    messages = [{"role": role, "content": text} for role, text in texts if text is not None]
    return {"messages": messages, **{field: row[field] for field in _BODY_FIELDS if field in row}}


def _sample(name: str, ask: str, text: str, kind: str) -> Sample:
    return Sample(name, {"messages": [{"role": "user", "content": ask}]}, text, kind, "stop")


def _docstrings() -> Iterator[Sample]:
    for name, thing in _things():
        doc = python_inspect.getdoc(thing) or ""
        if len(doc) >= 200:
            yield _sample(f"doc:{name}", f"What does {name} do in Python, and how is it used?", doc, "chat")


def _topics() -> Iterator[Sample]:
    for name, text in sorted(pydoc_data.topics.topics.items()):
        yield _sample(f"topic:{name}", f"Explain {name} in Python to me, please.", text, "analysis")


def _sources() -> Iterator[Sample]:
    for name, thing in _things():
        if python_inspect.isfunction(thing):
            code = textwrap.dedent(python_inspect.getsource(thing))
            text = f"Here is how it can be done:\n\n```python\n{code}```\n\nCall it as you would any other function."
            yield _sample(f"code:{name}", f"Write a Python function like {name}.", text, "code")


def _json_blocks() -> Iterator[Sample]:
    for indent in (None, 1, 2, 4):
        config = json.dumps(dict(sorted(sysconfig.get_paths().items())), indent=indent)
        yield _sample(f"json:{indent}", "Write the paths of Python as JSON.", f"```json\n{config}\n```", "code")


def _things() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes of the modules above, eight a module, each once."""
    for module_name in _MODULES.split():
        module = importlib.import_module(module_name)
        names = [name for name in sorted(vars(module)) if not name.startswith("_")]
        things = ((name, getattr(module, name)) for name in names)
        own = [
            (f"{module_name}.{name}", thing)
            for name, thing in things
            if getattr(thing, "__module__", "") == module_name
            and (python_inspect.isfunction(thing) or python_inspect.isclass(thing))
        ]
        yield from own[:8]
