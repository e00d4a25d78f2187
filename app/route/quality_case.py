"""What the quality checks look at: one answer beside what was asked, read once from plain values."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# An ask says what it wants at its head or, after pasted material, at its tail; the middle is material.
_ASK_HEAD = 1_500
_ASK_TAIL = 500
_CONTEXT_MESSAGES = 6
_MAX_SYSTEM = 4
_SYSTEM_ROLES = ("system", "developer")
# More fences than any honest answer has: past this many the rest is left unread, so that time stays bounded.
_MAX_FENCES = 400
_FENCE = re.compile(r"^[ \t>]*(?P<mark>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)(?P<odd>`?)", re.MULTILINE)
_THINK = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


class Block(NamedTuple):
    """A fenced code block: the first word after the fence in lower case (may be empty), and the code."""

    language: str
    code: str


class Parts(NamedTuple):
    """An answer taken apart: text outside fences, the fenced blocks, and whether the last fence was left open."""

    prose: str
    blocks: tuple[Block, ...]
    open_fence: bool


class Case(NamedTuple):
    """One answer beside its ask.

    Attributes:
        ask: the newest user message, head and tail.
        system: the system and developer texts, clipped.
        context: the newest of the other turns, each clipped.
        raw: the answer as it came.
        text: the answer as a reader sees it: begun by a prefill if there was one, without thinking, stripped.
        parts: ``text`` taken apart.
        kind: the verdict's kind, or None.
        finish_reason: as the backend gave it, or None.
        tool_calls: whether the answer calls tools.
        tools: whether the ask offers tools.
        response_format: the ask's, where it wants JSON, else None.
        stops: the ask's stop sequences.
        token_limit: the ask's own limit of answer tokens, or None.
    """

    ask: str
    system: str
    context: tuple[str, ...]
    raw: str
    text: str
    parts: Parts
    kind: str | None
    finish_reason: str | None
    tool_calls: bool
    tools: bool
    response_format: Mapping[str, Any] | None
    stops: tuple[str, ...]
    token_limit: int | None


def read_case(
    body: Mapping[str, Any], text: str, *, kind: str | None, finish_reason: str | None, tool_calls: bool
) -> Case:
    """Read a chat body and its answer; fields of a wrong type count as absent. Never raises on JSON values."""
    messages = [m for m in _list(body.get("messages")) if isinstance(m, dict)]
    prefill = message_text(messages.pop()) if messages and messages[-1].get("role") == "assistant" else ""
    newest = len(messages) - 1
    while newest >= 0 and messages[newest].get("role") != "user":
        newest -= 1
    turns = (
        [*messages[:newest][-_CONTEXT_MESSAGES:], *messages[newest + 1 :][:_CONTEXT_MESSAGES]] if newest >= 0 else []
    )
    visible = _visible(text, prefill)
    return Case(
        ask=clip(message_text(messages[newest])) if newest >= 0 else "",
        system=clip("\n".join([message_text(m) for m in messages[:_MAX_SYSTEM] if m.get("role") in _SYSTEM_ROLES])),
        context=tuple([clip(message_text(m)) for m in turns if m.get("role") not in _SYSTEM_ROLES]),
        raw=text,
        text=visible,
        parts=split(visible),
        kind=kind,
        finish_reason=finish_reason,
        tool_calls=tool_calls,
        tools=bool(_list(body.get("tools")) or _list(body.get("functions"))),
        response_format=_json_format(body.get("response_format")),
        stops=_stops(body.get("stop")),
        token_limit=_token_limit(body),
    )


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a chat message, its text parts joined by line ends; other parts are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = (part.get("text") for part in _list(content) if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))


def clip(text: str, head: int = _ASK_HEAD, tail: int = _ASK_TAIL) -> str:
    """Keep the first ``head`` and the last ``tail`` characters."""
    return text if len(text) <= head + tail else f"{text[:head]}\n{text[-tail:]}"


def split(text: str) -> Parts:
    """Take text apart at its code fences, in one pass.

    A fence is closed by a bare fence of the same sign that is at least as long (CommonMark 0.31, section 4.5). An
    unclosed one counts as left open only if the number of fences is odd and code follows it: models nest blocks of
    the same length, which CommonMark reads as an opening fence at the very end.
    """
    if "```" not in text and "~~~" not in text:
        return Parts(text, (), open_fence=False)
    prose: list[str] = []
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    at = count = 0
    for found in islice(_FENCE.finditer(text), _MAX_FENCES):
        if found["odd"]:  # inline code of three backticks, not a fence
            continue
        count += 1
        if opening is None:
            prose.append(text[at : found.start()])
            opening = found
        elif _closes(opening, found):
            blocks.append(_block(opening, text[opening.end() : found.start()]))
            opening, at = None, found.end()
    if opening is None:
        return Parts("\n".join([*prose, text[at:]]), tuple(blocks), open_fence=False)
    rest = text[opening.end() :]
    blocks.append(_block(opening, rest))
    return Parts("\n".join(prose), tuple(blocks), open_fence=count % 2 == 1 and bool(rest.strip("`~ \n")))


def _block(opening: re.Match[str], code: str) -> Block:
    words = opening["info"].split(None, 1)
    return Block(words[0].strip("{}.,:").lower() if words else "", code.strip("\n"))


def _closes(opening: re.Match[str], found: re.Match[str]) -> bool:
    mark: str = opening["mark"]
    return not found["info"].strip() and found["mark"].startswith(mark)


def _visible(text: str, prefill: str) -> str:
    whole = text if not prefill or text.startswith(prefill) else prefill + text
    thought = _THINK.match(whole) if "<think" in whole else None
    return (whole[thought.end() :] if thought else whole).strip().strip(_INVISIBLE).strip()


def _json_format(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) and value.get("type") in {"json_object", "json_schema"} else None


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else _list(value)
    return tuple(stop for stop in values if isinstance(stop, str))


def _token_limit(body: Mapping[str, Any]) -> int | None:
    for limit in (body.get("max_completion_tokens"), body.get("max_tokens")):
        if type(limit) is int:
            return limit
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
