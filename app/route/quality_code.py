"""Checks of answers to asks for code: is there code at all, and does it parse."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Final

from app.route import quality_syntax

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.route.quality_case import Block, Case

_MAX_FRAGMENT = 8_000  # longer blocks are no fragments; see _AS_FRAGMENT
_MAX_RIVALS = 3
_MAX_CODE = 16_000  # ast.parse: 2 ms of ordinary code, 25 ms of the worst found; longer blocks are not parsed

_PYTHON: Final = frozenset({"python", "py", "python3"})
_JSON: Final = frozenset({"json"})
# Where code is left out on purpose, or shown because it fails, it need not parse.
_ELISION = re.compile(r"\.\.\.|…|<[A-Za-z][\w -]*>|\byour[_ -]", re.IGNORECASE)
# In code, three dots are an ellipsis only where no operand follows: it may spread one, or make a range.
_CODE_ELISION = re.compile(r"\.\.\.\s*(?:$|[)}\],;])|…|<your", re.IGNORECASE | re.MULTILINE)
_SHOWN_BROKEN = re.compile(
    r"syntax ?error|invalid syntax|indentation ?error|python ?2|pseudo-?code|won't (?:compile|parse|run)", re.IGNORECASE
)
_PLACEHOLDER_COMMENT = re.compile(
    r"^([ \t]*)#.*(?:\.\.\.|…|existing|rest of|your code|same as|todo).*$", re.IGNORECASE | re.MULTILINE
)
_PROMPT_LINE = re.compile(r"^\s*(?:>>> |In \[\d+\]:|[%!]\w)", re.MULTILINE)
# Grammar newer than the oldest Python this runs on (PEP 695, PEP 701, PEP 750, PEP 758).
_NEWER_PYTHON = re.compile(
    r"^\s*type \w+.* = |\b(?:def|class)\s+\w+\[|(?<![\w\"'])t[\"']|\bexcept\*? \w+, ", re.MULTILINE
)
_CONTINUES = re.compile(r"(?:el(?:se|if)|except|finally|case)\b")

_INLINE_CODE = re.compile(r"`([^`\n]{4,300})`")
_CODE_SIGN = re.compile(r"[{}()\[\]<>=;|&$#@\\/+*^%~_:-]| ")
# Lines that open or end as code does, in the languages asked for most; sentences seldom do.
_CODE_LINE = re.compile(
    r"^[ \t]*(?:def |class \w+[:({]|import \w|from \w+ import|#include|#!/|package \w+;?$|using [\w.]+;|func |fn \w|"
    r"(?:public|private|static|const|let|var|function|async) .*[({=;]|</?[?!a-z][^<>]*>|"
    r"(?:SELECT|INSERT INTO|CREATE|UPDATE|DELETE FROM|WITH|ALTER|FROM|RUN|COPY|CMD|select|insert into) .*\S|"
    r"\$ ?\w|[\w.\[\]\"']+ ?(?::=|[-+*/|]?=) ?\S|return\b.*[;()]|@\w+|=[A-Z]+\(|[\w.]+\(.*\);?$|.*[;{]$|"
    r"(?:- )?[a-z_]+:(?: \S+)?$)",
    re.MULTILINE,
)
_SCAN = 20_000
_SYMBOLS: Final = frozenset("{}[]()<>=;|&$#@\\/*+^%~_-")
_SYMBOL_SHARE = 0.12
_COMMAND_WORDS = 12
_QUESTION = re.compile(r"[?？؟]\W*$")
_CLARIFYING_CHARS = 600


def no_code_block(case: Case) -> bool:
    """Tell whether code was asked for and the answer shows none, fenced, inline or bare.

    A question back to the caller is an answer too.
    """
    if case.kind != "code" or any(block.code.strip() for block in case.parts.blocks):
        return False
    if len(case.text) <= _CLARIFYING_CHARS and _QUESTION.search(case.text[-20:]):
        return False
    text = case.text[:_SCAN]
    return not (_inline_code(text) or _CODE_LINE.search(text) or _looks_like_command(text))


def broken_code(case: Case) -> bool:
    """Tell whether code was asked for and the block that delivers it does not parse.

    That block is the longest; another of the same language, at least half as long, that parses acquits the answer
    (before and after). Code that an answer shows because it is broken, or that leaves parts out, is not judged.
    """
    if case.kind != "code" or case.parts.open_fence or not case.parts.blocks:
        return False
    main = max(case.parts.blocks, key=lambda block: len(block.code))
    if not _broken(main) or _SHOWN_BROKEN.search(case.parts.prose[:_SCAN]) or _SHOWN_BROKEN.search(case.ask):
        return False
    least = len(main.code) / 2
    rivals = (b for b in case.parts.blocks if b is not main and b.language == main.language and len(b.code) >= least)
    return all(map(_broken, islice(rivals, _MAX_RIVALS)))


def _broken(block: Block) -> bool:
    if len(block.code) > _MAX_CODE:
        return False
    if block.language in _PYTHON:
        return _broken_python(block.code)
    if block.language in _JSON:
        return _broken_json(block.code)
    return not _CODE_ELISION.search(block.code) and quality_syntax.broken(block.language, block.code)


def _broken_python(code: str) -> bool:
    if _python_parses(code):
        return False
    if _PROMPT_LINE.search(code) or _NEWER_PYTHON.search(code):
        return False
    if len(code) > _MAX_FRAGMENT:
        return True
    mended = _PLACEHOLDER_COMMENT.sub(r"\1pass", textwrap.dedent(code))
    return not any(_python_parses(attempt(mended)) for attempt in _AS_FRAGMENT)


# A fragment may lack its head (an else) or its body (a signature): readings under which it still is Python.
_AS_FRAGMENT: Final[tuple[Callable[[str], str], ...]] = (
    lambda code: code,
    lambda code: f"{code}\n{_indent_after(code)}pass",
    lambda code: f"{_head_for(code)}{code}",
)


def _indent_after(code: str) -> str:
    last = code.rstrip().rpartition("\n")[2]
    return " " * (len(last) - len(last.lstrip()) + 4)


def _head_for(code: str) -> str:
    word = _CONTINUES.match(code)
    if word is None:
        return ""
    if word.group() == "case":
        return "match a:\n"
    return "if a:\n    pass\n" if word.group() in {"else", "elif"} else "try:\n    pass\n"


def _python_parses(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about an escape sequence would print parts of the answer
        try:
            ast.parse(code)
        except SyntaxError as error:
            # Before Python 3.12 some valid f-strings are refused (PEP 701).
            return str(error.msg).startswith("f-string")
        except (ValueError, MemoryError, RecursionError):
            return True  # NUL bytes, surrogates or depth: no verdict
    return True


def _broken_json(code: str) -> bool:
    if not code.lstrip().startswith(("{", "[")) or _ELISION.search(code) or "//" in code or "/*" in code:
        return False  # a fragment, or with parts left out, or with comments: shown to people, not to a parser
    if _json_parses(code):
        return False
    lines = [line for line in code.splitlines() if line.strip()]
    return not all(map(_json_parses, lines))  # JSON Lines


def _json_parses(code: str) -> bool:
    try:
        json.loads(code)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _inline_code(text: str) -> bool:
    return any(_CODE_SIGN.search(found.group(1)) for found in _INLINE_CODE.finditer(text))


def _looks_like_command(text: str) -> bool:
    """Tell whether the whole answer is one bare expression or command: few words, no full stop, or dense in signs."""
    if "\n" in text:
        return False
    if sum(map(_SYMBOLS.__contains__, text)) >= max(2, len(text) * _SYMBOL_SHARE):
        return True
    return len(text.split()) <= _COMMAND_WORDS and text[:1].islower() and text[-1:] not in ".!。"
