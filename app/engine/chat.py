"""Messages to a prompt with the tokenizer's own template; the answer's text to content, reasoning and tool calls."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from app.engine.errors import invalid, unsupported
from app.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Callable

_ROLES = {"system", "developer", "user", "assistant", "tool"}


class Prompt(NamedTuple):
    """A rendered conversation: its tokens, and whether the template has opened a reasoning block."""

    tokens: list[int]
    reasoning: bool


def normalised(messages: Any) -> list[dict[str, Any]]:
    """Return messages as chat templates expect them: text content, arguments as objects.

    Raises:
        CallerError: 400, with the path of the offending field.
    """
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "must be a list with at least one message")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Any, path: str) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise invalid(f"{path}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    role = "system" if message["role"] == "developer" else message["role"]
    clean = {**message, "role": role, "content": _content(message.get("content"), f"{path}.content")}
    if message.get("tool_calls"):
        clean["tool_calls"] = [_call(c, f"{path}.tool_calls[{i}]") for i, c in enumerate(message["tool_calls"])]
    else:
        clean.pop("tool_calls", None)
    return clean


def _content(content: Any, path: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(path, "must be a string or a list of parts")
    return "\n".join(_part(part, f"{path}[{i}]") for i, part in enumerate(content))


def _part(part: Any, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if isinstance(part, dict) and kind in {"text", "refusal"} else None
    if not isinstance(text, str):
        raise unsupported(path, f"this engine reads text parts only, not {kind or type(part).__name__}")
    return text


def _call(call: Any, path: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(f"{path}.function.name", "must be a string")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise invalid(f"{path}.function.arguments", "is not JSON") from None
    return {**call, "function": {**function, "arguments": arguments}}


def continues(messages: list[dict[str, Any]]) -> bool:
    """Return whether the last message is the beginning of the answer, to be gone on with."""
    last = messages[-1]
    return last["role"] == "assistant" and bool(last["content"]) and not last.get("tool_calls")


def render(tokenizer: Any, messages: list[dict[str, Any]], tools: list[Any], options: dict[str, Any]) -> Prompt:
    """Render a conversation with the model's own template.

    Raises:
        CallerError: 400, the model has no template, or its template refuses the roles or knows no tools.
    """
    if not tokenizer.has_chat_template:
        raise CallerError(
            "this model has no chat template: use /v1/completions, or choose an instruct model",
            code="chat_template_missing",
            param="model",
        )
    text = _rendered(tokenizer, messages, tools, options)
    if tools and text == _rendered(tokenizer, messages, [], options):
        raise unsupported("tools", "this model's chat template knows no tools: choose a model trained for them")
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return Prompt(tokens, _opens_reasoning(text, tokenizer.think_start, tokenizer.think_end))


def _rendered(tokenizer: Any, messages: list[dict[str, Any]], tools: list[Any], options: dict[str, Any]) -> str:
    import jinja2

    goes_on = continues(messages)
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                **options,
            )
        )
    except (jinja2.exceptions.TemplateError, ValueError, TypeError, KeyError) as error:
        raise invalid("messages", f"the model's chat template refuses them: {error}") from None


def _opens_reasoning(text: str, start: str | None, end: str | None) -> bool:
    return bool(start and end) and text.rfind(str(start)) > text.rfind(str(end))


@dataclass(frozen=True, slots=True)
class Marks:
    """The texts that a model puts around its reasoning and its tool calls; empty where it has none."""

    think_start: str = ""
    think_end: str = ""
    call_start: str = ""
    call_end: str = ""


def marks_of(tokenizer: Any) -> Marks:
    """Read a tokenizer's marks."""
    return Marks(
        tokenizer.think_start or "",
        tokenizer.think_end or "",
        tokenizer.tool_call_start or "" if tokenizer.has_tool_calling else "",
        tokenizer.tool_call_end or "" if tokenizer.has_tool_calling else "",
    )


def has_json_calls(tokenizer: Any) -> bool:
    """Return whether the model writes its calls as a JSON object with a name and arguments."""
    return bool(tokenizer.has_tool_calling) and str(tokenizer.tool_parser.__module__).endswith("json_tools")


class Piece(NamedTuple):
    """A part of an answer: ``content``, ``reasoning`` or ``call`` (then ``call`` is OpenAI's tool call)."""

    kind: str
    text: str
    call: dict[str, Any] | None = None


class Splitter:
    """Splits an answer's text, as it comes, into content, reasoning and tool calls. No I/O.

    Args:
        marks: the model's marks; call marks empty where no tools were offered.
        parse: turns the text between call marks into ``{"name", "arguments"}`` or a list of them.
        state: ``content``, ``reasoning`` or ``call``: what the answer begins with.
    """

    def __init__(self, marks: Marks, parse: Callable[[str], Any] | None = None, state: str = "content") -> None:
        self._parse = parse
        self._state, self._held, self._call = state, "", ""
        self._fresh = True
        self.calls = 0
        into_call = {marks.call_start: "call"} if marks.call_start and parse is not None else {}
        into_thought = {marks.think_start: "reasoning"} if marks.think_start else {}
        self._exits: dict[str, dict[str, str]] = {
            "content": {**into_thought, **into_call},
            "reasoning": {marks.think_end: "content"} if marks.think_end else {},
            "call": {marks.call_end: "content"} if marks.call_end else {},
        }

    def feed(self, text: str) -> list[Piece]:
        """Take more text and return what it completes."""
        if self._state == "content" and not self._exits["content"]:
            return [Piece("content", text)] if text else []
        pieces: list[Piece] = []
        text = self._held + text
        while True:
            at, mark = _first(text, self._exits[self._state])
            if at < 0:
                break
            self._emit(text[:at], pieces)
            self._enter(self._exits[self._state][mark], pieces)
            text = text[at + len(mark) :]
        keep = _partial(text, self._exits[self._state])
        self._held = text[len(text) - keep :]
        self._emit(text[: len(text) - keep], pieces)
        return pieces

    def flush(self) -> list[Piece]:
        """Return what is left at the end of the answer."""
        pieces: list[Piece] = []
        self._emit(self._held, pieces)
        self._held = ""
        if self._state == "call":
            self._enter("content", pieces)
        return pieces

    def _emit(self, text: str, pieces: list[Piece]) -> None:
        if self._state == "call":
            self._call += text
            return
        if self._fresh and self._state == "reasoning":
            text = text.lstrip("\n")
        if text:
            self._fresh = False
            pieces.append(Piece(self._state, text))

    def _enter(self, state: str, pieces: list[Piece]) -> None:
        if self._state == "call":
            pieces += self._calls()
        self._state, self._fresh, self._call = state, True, ""

    def _calls(self) -> list[Piece]:
        try:
            parsed = self._parse(self._call) if self._parse is not None else None
            calls = parsed if isinstance(parsed, list) else [parsed]
            pieces = [Piece("call", "", self._openai(call)) for call in calls]
        except Exception:  # noqa: BLE001 - what the model wrote is no call: it is shown as it is, not lost
            return [Piece("content", self._call)] if self._call else []
        self.calls += len(pieces)
        return pieces

    def _openai(self, call: Any) -> dict[str, Any]:
        arguments = call["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": str(call["name"]), "arguments": text},
        }


def _first(text: str, marks: dict[str, str]) -> tuple[int, str]:
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    return min(found, default=(-1, ""))


def _partial(text: str, marks: dict[str, str]) -> int:
    longest = max(map(len, marks), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[len(text) - length :]) for mark in marks):
            return length
    return 0
