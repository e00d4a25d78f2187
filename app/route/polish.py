"""The messages that ask a model to improve a weak draft.

What the caller and the draft's model wrote is data: it is put between fences that nobody can guess, in one pass that
never looks at what it put in, so that a text which holds a placeholder stays the text it is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from app.route.quality_case import message_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PLACEHOLDER = re.compile(r"\{\{ *(ask|draft|faults|fence) *\}\}")
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\n---\r?\n", re.DOTALL)
_NEUTRAL = "[removed]"
_MAX_ASK_CHARS = 48_000  # about 12,000 tokens; older turns than fit are left out
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_MIN_FENCE = 16

# What each fault of quality.FAULTS asks of the improved answer.
EXPLAINED: Final[dict[str, str]] = {
    "empty": "It is empty.",
    "error_markers": "It is an error message instead of an answer.",
    "refusal": "It refuses, though nothing harmful may have been asked.",
    "schema_miss": "It is not the JSON that was asked for.",
    "cut_off": "It breaks off before its end.",
    "repetition": "It repeats itself over and over.",
    "wrong_language": "It is not in the language of the message that it answers.",
    "broken_code": "Its code does not parse.",
    "no_code_block": "Code was asked for, and it holds none.",
    "too_short": "It is far shorter than what was asked for.",
}


def polish_messages(
    template: str,
    ask_messages: Sequence[Mapping[str, Any]],
    draft: str,
    faults: Iterable[str],
    fence: str,
) -> list[dict[str, str]]:
    """Return the messages of a polish call: the template as one user message, its placeholders filled.

    Args:
        template: the text of ``prompts/polish.md``, with or without its front matter.
        ask_messages: the chat body's messages; what is no text is left out and named as such.
        draft: the weak answer.
        faults: names from ``quality.FAULTS``; others are left out.
        fence: a line that marks data off, new and random for each call; wherever the data holds it, it is taken out.

    Raises:
        ValueError: the fence is shorter than 16 characters, so that it could be guessed, or no single word.
    """
    if len(fence) < _MIN_FENCE or fence.split() != [fence]:
        raise ValueError("the fence must be one word of at least 16 characters, drawn at random for this call")
    values = {
        "ask": _unfenced(conversation(ask_messages), fence),
        "draft": _unfenced(draft, fence),
        "faults": _explained(faults),
        "fence": fence,
    }
    body = _FRONT_MATTER.sub("", template, count=1)
    content = _PLACEHOLDER.sub(lambda found: values[found.group(1)], body)
    return [{"role": "user", "content": content.strip()}]


def _explained(faults: Iterable[str]) -> str:
    lines = [f"- {EXPLAINED[fault]}" for fault in faults if fault in EXPLAINED]
    return "\n".join(lines or ["- It is weak; no single fault was named."])


def _unfenced(text: str, fence: str) -> str:
    """Take the fence out of data; what is put in its place keeps the pieces from joining into a new one."""
    return text.replace(fence, _NEUTRAL)


def conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write the turns as JSON, one a line, so that no text can forge a turn: system texts and the newest turns.

    A turn that is too long for its share alone is shortened in its middle.
    """
    rules = [message for message in messages if message.get("role") in _SYSTEM_ROLES]
    others = [message for message in messages if message.get("role") not in _SYSTEM_ROLES]
    lines = _newest(rules, _MAX_ASK_CHARS // 4) + _newest(others, _MAX_ASK_CHARS)
    return "\n".join(lines)


def _newest(messages: Sequence[Mapping[str, Any]], limit: int) -> list[str]:
    lines: list[str] = []
    room = limit
    for message in reversed(messages):
        line = _turn(message, limit)
        if lines and len(line) > room:
            break
        lines.append(line)
        room -= len(line)
    return lines[::-1]


def _turn(message: Mapping[str, Any], limit: int) -> str:
    content = message.get("content")
    turn = {"role": str(message.get("role")), "text": _shortened(message_text(message), limit)}
    if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") != "text" for part in content):
        turn["note"] = "a part that is no text is not shown"
    return json.dumps(turn, ensure_ascii=False)


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} [...] {text[-(limit // 2) :]}"
