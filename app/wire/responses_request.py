"""A request of ``/v1/responses`` as a chat: input items become messages.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import CallerError
from app.wire.fields import Json, a_string, an_array, an_object, bad, hints_of, kept, missing, objects, unsupported
from app.wire.responses_items import opened

if TYPE_CHECKING:
    from collections.abc import Callable

BUILT_IN = "builtin_tools"
"""The ability of those who have the wire themselves: OpenAI's own tools, files and prompts."""
_SAME = (
    *("model", "models", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("service_tier", "temperature", "top_p", "parallel_tool_calls", "stream"),
)
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_WORDS = frozenset({"auto", "none", "required"})


@dataclass(slots=True)
class Chat:
    """A chat in the making.

    Attributes:
        messages: so far.
        needs: abilities that only a target with this wire has.
        thought: reasoning that belongs to the assistant's next message.
    """

    messages: list[Json] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    thought: Json = field(default_factory=dict)

    def add(self, message: Json) -> None:
        """Add a message; the assistant's takes the reasoning that came before it."""
        if message["role"] == "assistant":
            message |= self.thought
            self.thought = {}
        self.messages.append(message)

    def call(self, call: Json) -> None:
        """Add a tool call, to the assistant's message if that is the last and nothing was thought since."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or self.thought:
            last = {"role": "assistant", "content": None}
            self.add(last)
        last.setdefault("tool_calls", []).append(call)


def to_chat(body: Json) -> tuple[Json, frozenset[str]]:
    """Translate a request; also return the abilities that only a target with this wire has.

    Raises:
        CallerError: 400, with the path of what is wrong or cannot be done.
    """
    _refuse(body)
    chat = Chat()
    if body.get("instructions") is not None:
        chat.add({"role": "system", "content": a_string(body["instructions"], "instructions")})
    _read_input(chat, body.get("input"))
    made = {**kept(body, _SAME), **hints_of(body), "messages": chat.messages}
    made |= _limits(body) | _form(body) | _tools(chat, body)
    if body.get("prompt") is not None or body.get("moderation") is not None:
        chat.needs.add(BUILT_IN)
    return made, frozenset(chat.needs)


def _refuse(body: Json) -> None:
    """Refuse what is not offered on any target."""
    if body.get("background"):
        raise unsupported("background", "Responses in the background are not supported: leave 'background' out.")
    if body.get("conversation") is not None:
        raise unsupported(
            "conversation", "Conversations are not supported: send the items, or use 'previous_response_id'."
        )


def _limits(body: Json) -> Json:
    found: Json = {}
    limit = body.get("max_output_tokens")
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise bad("max_output_tokens", "must be a whole number of at least 1")
        found["max_completion_tokens"] = limit
    effort = an_object(body.get("reasoning") or {}, "reasoning").get("effort")
    if effort is not None:
        found["reasoning_effort"] = a_string(effort, "reasoning.effort")
    include = an_array(body.get("include") or [], "include")
    if body.get("top_logprobs") or "message.output_text.logprobs" in include:
        found |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return found


def _form(body: Json) -> Json:
    """Translate ``text``: the answer's format and verbosity."""
    text = an_object(body.get("text") or {}, "text")
    found = kept(text, ("verbosity",))
    form = an_object(text.get("format") or {"type": "text"}, "text.format")
    kind = form.get("type")
    if kind == "json_object":
        found["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        a_string(form.get("name"), "text.format.name")
        an_object(form.get("schema"), "text.format.schema")
        schema = kept(form, ("name", "schema", "strict", "description"))
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind != "text":
        raise bad("text.format.type", "must be text, json_object or json_schema")
    return found


# -- tools -------------------------------------------------------------------------------------------------------------


def _tools(chat: Chat, body: Json) -> Json:
    functions = []
    for path, tool in objects(body.get("tools"), "tools"):
        if tool.get("type") != "function":
            a_string(tool.get("type"), f"{path}.type")
            chat.needs.add(BUILT_IN)
            continue
        a_string(tool.get("name"), f"{path}.name")
        functions.append({"type": "function", "function": _function(tool)})
    choice = body.get("tool_choice")
    if not functions:
        return {}
    if choice is None:
        return {"tools": functions}
    return _chosen(chat, functions, choice)


def _function(tool: Json) -> Json:
    return kept(tool, ("name", "description", "parameters", "strict"))


def _chosen(chat: Chat, functions: list[Json], choice: Any) -> Json:
    """Translate ``tool_choice``; of allowed tools, only those are offered."""
    if isinstance(choice, str) and choice in _WORDS:
        return {"tools": functions, "tool_choice": choice}
    kind = an_object(choice, "tool_choice").get("type")
    if kind == "function":
        name = a_string(choice.get("name"), "tool_choice.name")
        return {"tools": functions, "tool_choice": {"type": "function", "function": {"name": name}}}
    if kind == "allowed_tools":
        allowed = {tool.get("name") for _, tool in objects(choice.get("tools"), "tool_choice.tools")}
        offered = [each for each in functions if each["function"]["name"] in allowed]
        return {"tools": offered, "tool_choice": choice.get("mode") or "auto"} if offered else {}
    chat.needs.add(BUILT_IN)
    return {"tools": functions}


# -- input -------------------------------------------------------------------------------------------------------------


def _read_input(chat: Chat, given: Any) -> None:
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        chat.add({"role": "user", "content": given})
        return
    items = objects(given, "input")
    for path, item in items:
        kind = item.get("type") or ("message" if "role" in item else "item_reference")
        reader = _ITEMS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            a_string(kind, f"{path}.type")
            chat.needs.add(BUILT_IN)
        else:
            reader(chat, item, path)
    if not chat.messages and not chat.needs:
        raise bad("input", "must hold at least one item")


def _message(chat: Chat, item: Json, path: str) -> None:
    role = item.get("role")
    if role not in _ROLES:
        raise bad(f"{path}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    content = item.get("content")
    if isinstance(content, str):
        chat.add({"role": role, "content": content})
        return
    parts = [_part(chat, part, where) for where, part in objects(content or [], f"{path}.content")]
    chat.add({"role": role, **_content([part for part in parts if part is not None])})


def _content(parts: list[Json]) -> Json:
    """Return a message's content; a single text is a string, and a refusal has a field of its own."""
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    said = [part for part in parts if part["type"] != "refusal"]
    content: Any = said
    if len(said) == 1 and said[0]["type"] == "text":
        content = said[0]["text"]
    elif not said:
        content = None if refusals else ""
    return {"content": content} | ({"refusal": "".join(refusals)} if refusals else {})


def _part(chat: Chat, part: Json, path: str) -> Json | None:
    """Translate one part; None where only a target with this wire can read it."""
    kind = part.get("type")
    if kind in {"input_text", "output_text", "text"}:
        return {"type": "text", "text": a_string(part.get("text"), f"{path}.text")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": a_string(part.get("refusal"), f"{path}.refusal")}
    if kind == "input_image" and part.get("image_url") is not None:
        image = {"url": a_string(part["image_url"], f"{path}.image_url"), **kept(part, ("detail",))}
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and part.get("file_data") is not None:
        return {"type": "file", "file": kept(part, ("filename", "file_data"))}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": an_object(part.get("input_audio"), f"{path}.input_audio")}
    a_string(kind, f"{path}.type")
    chat.needs.add(BUILT_IN)
    return None


def _function_call(chat: Chat, item: Json, path: str) -> None:
    function = {
        "name": a_string(item.get("name"), f"{path}.name"),
        "arguments": a_string(item.get("arguments"), f"{path}.arguments"),
    }
    call = {"id": a_string(item.get("call_id"), f"{path}.call_id"), "type": "function", "function": function}
    chat.call(call | kept(item, ("extra_content",)))


def _function_output(chat: Chat, item: Json, path: str) -> None:
    call_id, output = a_string(item.get("call_id"), f"{path}.call_id"), item.get("output")
    if isinstance(output, str):
        chat.add({"role": "tool", "tool_call_id": call_id, "content": output})
        return
    parts = [_part(chat, part, where) for where, part in objects(an_array(output, f"{path}.output"), f"{path}.output")]
    add_tool_result(chat.add, call_id, [part for part in parts if part is not None])


def add_tool_result(add: Callable[[Json], None], call_id: str, parts: list[Json]) -> None:
    """Add a tool's result; what is no text follows as the user's, since a chat's tool message holds texts only."""
    texts = [part["text"] for part in parts if part["type"] == "text"]
    rest = [part for part in parts if part["type"] != "text"]
    add({"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts) or ("See below." if rest else "")})
    if rest:
        add({"role": "user", "content": rest})


def _reasoning(chat: Chat, item: Json, path: str) -> None:
    """Keep the reasoning for the assistant's message that follows."""
    texts = [part.get("text") for _, part in objects(item.get("content"), f"{path}.content")]
    texts = texts or [part.get("text") for _, part in objects(item.get("summary"), f"{path}.summary")]
    told = "\n\n".join(text for text in texts if isinstance(text, str))
    if told:
        before = chat.thought.get("reasoning_content")
        chat.thought["reasoning_content"] = f"{before}\n\n{told}" if before else told
    blocks = opened(item.get("encrypted_content"))
    if blocks:
        chat.thought["thinking_blocks"] = [*chat.thought.get("thinking_blocks", ()), *blocks]


def _reference(_chat: Chat, _item: Json, path: str) -> None:
    raise CallerError(
        f"'{path}' refers to an item of a stored response, and there is none: send the item itself.",
        status=404,
        code="item_not_found",
        param=path,
    )


_ITEMS: dict[str, Callable[[Chat, Json, str], None]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_output,
    "reasoning": _reasoning,
    "item_reference": _reference,
}
