"""Syntax of languages other than Python and JSON, by tree-sitter, which is an optional extra.

Grammars are imported when a block of their language is first seen; where one is not installed nothing is judged.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Fence word -> module of the grammar and its factory. Left out: shells (commands in answers hold <placeholders>,
# prompts and output, none of which parses), and C and C++ (macros: without the preprocessor a third of real files
# does not parse).
_GRAMMARS: Final[dict[str, tuple[str, str]]] = {
    "javascript": ("tree_sitter_javascript", "language"),
    "js": ("tree_sitter_javascript", "language"),
    "jsx": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "ts": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "golang": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "rs": ("tree_sitter_rust", "language"),
    "java": ("tree_sitter_java", "language"),
}


def _as_body(code: str) -> str:
    return f"func _() {{\n{code}\n}}"


def _as_chain(code: str) -> str:
    return f"_{code.lstrip()}"


def _as_object(code: str) -> str:
    return f"_ = {code};"


def _as_members(code: str) -> str:
    return f"_ = {{\n{code}\n}};"


def _as_class(code: str) -> str:
    return f"class _ {{\n{code}\n}}"


# Fragments that answers show and that are no whole file, told by how they begin, and how they are read: statements of
# Go; a chain of calls, an object or its members, members of a class.
_Reading = tuple[re.Pattern[str], "Callable[[str], str]"]
_ANY: Final = re.compile("")
_SCRIPT_READINGS: Final[tuple[_Reading, ...]] = (
    (re.compile(r"\s*\??\."), _as_chain),
    (re.compile(r"\s*\{"), _as_object),
    (re.compile(r"""\s*["']?[\w-]+["']?\??:"""), _as_members),
    (re.compile(r"\s*(?:(?:async|static|get|set|public|private|protected|readonly) |@\w|#?\w+\()"), _as_class),
)
_READINGS: Final[dict[str, tuple[_Reading, ...]]] = {
    "tree_sitter_go": ((_ANY, _as_body),),
    "tree_sitter_javascript": _SCRIPT_READINGS,
    "tree_sitter_typescript": _SCRIPT_READINGS,
    "tree_sitter_java": ((_ANY, _as_class),),
}


def broken(language: str, code: str) -> bool:
    """Tell whether the code of a fenced block parses under no reading; False where its grammar is not installed."""
    if language not in _GRAMMARS:
        return False
    module, factory = _GRAMMARS[language]
    parser = _parser(module, factory)
    if parser is None:
        return False
    readings = (reading for begins, reading in _READINGS.get(module, ()) if begins.match(code))
    return _has_error(parser, code) and all(_has_error(parser, reading(code)) for reading in readings)


def _has_error(parser: Any, code: str) -> bool:
    tree = parser.parse(f"{code}\n".encode(errors="replace"))
    return bool(tree.root_node.has_error)


@cache
def _parser(module: str, factory: str) -> Any:
    try:
        tree_sitter = import_module("tree_sitter")
        grammar = import_module(module)
    except ImportError:
        return None
    return tree_sitter.Parser(tree_sitter.Language(getattr(grammar, factory)()))
