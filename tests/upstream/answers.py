"""What is said: the text, tool calls, JSON documents and vectors that follow from a request, always the same ones.

The last user message may say what the answer is:
    SAY text                the text, verbatim
    REASON text             `reasoning_content` text, then the usual answer
    CALL name {json}        a tool call (one a line), where the body has tools
    SCRIPT {json}           any of say, reason, refusal, finish, calls [{"name", "arguments"}], usage {...}
Otherwise the answer repeats the message. A forced tool_choice gets a call, a response_format gets a JSON document.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from tests.upstream import documents
from tests.upstream.faults import base_name
from tests.upstream.judge import verdict

if TYPE_CHECKING:
    from tests.upstream.faults import Faults

_WORDS = re.compile(r"\s*\S+|\s+")
_INTEGER = re.compile(r"\d+")
_CALL = re.compile(r"^CALL (\S+) ?(.*)$", re.MULTILINE)
_REPEATED_WORDS = 40
_SPOKEN = {
    "english": "I would rather speak English, whatever language I have been asked in and by whomever.",
    "russian": "Я охотно отвечаю на русском языке, когда меня об этом спрашивают или просят.",
}
_REPEATED_CHARS = 300


class PrefillRefused(Exception):  # noqa: N818 - an event
    """The model takes no assistant message at the end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call."""

    name: str
    arguments: str


@dataclass(slots=True)
class Reply:
    """What is answered, before it has a wire shape; tokens are words."""

    content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    calls: list[Call] = field(default_factory=list)
    finish: str = "stop"
    prompt_tokens: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def completion_tokens(self) -> int:
        texts = [self.content, self.reasoning, self.refusal, *(call.arguments for call in self.calls)]
        return sum(len(words(text)) for text in texts if text)


def words(text: str) -> list[str]:
    """Split a text into words that keep the white space before them: joined they are the text."""
    return _WORDS.findall(text)


def text_of(content: Any) -> str:
    """Return the text of a message's content, a string or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages; the prompt of a legacy completion counts as one."""
    if "prompt" in body:
        prompt = body["prompt"]
        return [{"role": "user", "content": prompt if isinstance(prompt, str) else str(prompt)}]
    messages = body.get("messages")
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def reply_to(body: dict[str, Any], faults: Faults, *, friendly: bool = False) -> Reply:
    """Work out the answer to a chat or completion request.

    Raises:
        PrefillRefused: the last message is the assistant's and the model's name says `noprefill`.
    """
    messages, model = messages_of(body), str(body.get("model", ""))
    asked = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    judge = faults.find("judge", "gullible")
    bias, gullible = faults.number("judge", 0), faults.has("gullible")
    judged = Reply(verdict(body, gullible=gullible, bias=bias)) if judge is not None else None
    reply = judged or _scripted(asked, body, messages, faults) or Reply(_usual(asked, model, faults, friendly=friendly))
    reply.prompt_tokens = sum(len(words(text_of(m.get("content")))) for m in messages)
    if (finish := faults.find("finish")) is not None:
        reply.finish = finish.arg or "length"
    _continue(reply, messages, model)
    _shorten(reply, body.get("max_completion_tokens") or body.get("max_tokens"))
    return reply


def _usual(asked: str, model: str, faults: Faults, *, friendly: bool) -> str:
    if faults.find("words"):
        return " ".join(f"word{n}" for n in range(int(faults.number("words", 10))))
    if (spoken := faults.find("english", "russian")) is not None:
        return _SPOKEN[spoken.name]
    if friendly:
        return f"This is a scripted answer from the demo model '{base_name(model)}'. You asked: {_repeat(asked)}"
    text = f"You said: {_repeat(asked)}\nThat is the whole of this scripted answer, given word by word."
    text = f"Differently put: {text}" if faults.has("other") else text
    quality = faults.find("quality")
    return f"{text} (quality {quality.arg})" if quality is not None else text


def _repeat(asked: str) -> str:
    start = "".join(words(asked)[:_REPEATED_WORDS])[:_REPEATED_CHARS]
    if start == asked:
        return asked
    return f"{start} … [{zlib.crc32(asked.encode('utf-8', 'surrogatepass')):08x}]"


def _scripted(asked: str, body: dict[str, Any], messages: list[dict[str, Any]], faults: Faults) -> Reply | None:
    if messages and messages[-1].get("role") == "tool":
        return Reply(f"The tool said: {text_of(messages[-1].get('content'))}")
    if asked.startswith("SAY "):
        return Reply(asked[4:])
    if asked.startswith("REASON "):
        return Reply("That is the conclusion of it.", reasoning=asked[7:])
    if asked.startswith("SCRIPT {"):
        return _table(orjson.loads(asked[7:]))
    return _eager(asked, body, faults) or _tool_calls(asked, body) or _document(body, faults)


def _eager(asked: str, body: dict[str, Any], faults: Faults) -> Reply | None:
    """Call a tool, as a model would: the one that is forced, else the first; with what the message says."""
    tools = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    choice = body.get("tool_choice")
    if not tools or choice == "none" or not faults.has("eager"):
        return None
    name = choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else tools[0]["name"]
    tool = next((each for each in tools if each["name"] == name), tools[0])
    number = _INTEGER.search(asked)
    told = {int: int(number[0]) if number else 1, str: asked}
    arguments = documents.minimal(tool.get("parameters") or {"type": "object"})
    if isinstance(arguments, dict):
        arguments = {name: told.get(type(value), value) for name, value in arguments.items()}
    return Reply(calls=[Call(tool["name"], _arguments(arguments))], finish="tool_calls")


def _table(table: dict[str, Any]) -> Reply:
    calls = [Call(c["name"], _arguments(c.get("arguments", {}))) for c in table.get("calls", ())]
    finish = table.get("finish") or ("tool_calls" if calls else "stop")
    reply = Reply(table.get("say"), table.get("reason"), table.get("refusal"), calls, finish)
    reply.usage = table.get("usage", {})
    return reply


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _tool_calls(asked: str, body: dict[str, Any]) -> Reply | None:
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if not tools or choice == "none":
        return None
    calls = [Call(name, arguments or "{}") for name, arguments in _CALL.findall(asked)]
    calls = calls or _forced(tools, choice)
    return Reply(calls=calls, finish="tool_calls") if calls else None


def _forced(tools: list[dict[str, Any]], choice: Any) -> list[Call]:
    functions = {tool["function"]["name"]: tool["function"] for tool in tools if "function" in tool}
    name = choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else ""
    if choice == "required":
        name = next(iter(functions), "")
    if name not in functions:
        return []
    return [Call(name, _arguments(documents.minimal(functions[name].get("parameters") or {"type": "object"})))]


def _document(body: dict[str, Any], faults: Faults) -> Reply | None:
    wanted = body.get("response_format") or {}
    if wanted and faults.has("noformat"):
        raise ValueError("response_format is not supported by this model")
    if wanted.get("type") == "json_schema":
        return Reply(documents.written(wanted["json_schema"].get("schema", {}), faults))
    return Reply('{"answer": "text"}') if wanted.get("type") == "json_object" else None


def _continue(reply: Reply, messages: list[dict[str, Any]], model: str) -> None:
    """Go on exactly after a text that the assistant began, where the model's name says `prefill`."""
    if not messages or messages[-1].get("role") != "assistant":
        return
    if "noprefill" in model:
        raise PrefillRefused
    if "prefill" in model and reply.content is not None:
        begun = text_of(messages[-1].get("content"))
        same = reply.content.startswith(begun)
        reply.content = reply.content[len(begun) :] if same else " and so on."


def _shorten(reply: Reply, limit: Any) -> None:
    if isinstance(limit, int) and reply.content is not None and len(words(reply.content)) > limit > 0:
        reply.content = "".join(words(reply.content)[:limit])
        reply.finish = "length"


def vector(text: str, dimensions: int) -> list[float]:
    """Return a unit vector that depends on the words of a text only: the more words shared, the closer."""
    sums = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        code = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        sums[code % dimensions] += 1.0 if code & 0x80000000 else -1.0
    length = math.sqrt(sum(x * x for x in sums))
    return [x / length for x in sums] if length else [1.0] + [0.0] * (dimensions - 1)
