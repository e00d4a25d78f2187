"""A request of Anthropic's ``/v1/messages`` as a chat.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from app.wire.fields import Json, a_string, an_object, bad, hints_of, kept, missing, objects
from app.wire.responses_request import add_tool_result

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER_TOOLS = "server_tools"
"""The ability of those who have the wire themselves: Anthropic's own tools, files and kinds of content."""
_SAME = ("model", "models", "stream", "temperature", "top_p", "top_k")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = {"max": "xhigh"}
"""The efforts that have another name in a chat."""


def to_chat(body: Json) -> tuple[Json, frozenset[str]]:
    """Translate a request; also return the abilities that only a target with this wire has.

    ``thinking`` has no counterpart that every model takes: who thinks by itself goes on doing so.

    Raises:
        CallerError: 400, with the path of what is wrong.
    """
    needs: set[str] = set()
    limit = body.get("max_tokens")
    if limit is None:
        raise missing("max_tokens")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise bad("max_tokens", "must be a whole number of at least 1")
    messages = _system(body.get("system")) + _messages(body.get("messages"), needs)
    made = {**kept(body, _SAME), **hints_of(body), "messages": messages, "max_tokens": limit}
    if body.get("stop_sequences"):
        made["stop"] = body["stop_sequences"]
    user = an_object(body.get("metadata") or {}, "metadata").get("user_id")
    if user is not None:
        made["user"] = a_string(user, "metadata.user_id")
    if body.get("container") is not None or body.get("mcp_servers"):
        needs.add(SERVER_TOOLS)
    return made | _output(body) | _tools(body, needs), frozenset(needs)


def _system(told: Any) -> list[Json]:
    if told is None:
        return []
    if isinstance(told, str):
        return [{"role": "system", "content": told}] if told else []
    parts = [{"type": "text", "text": a_string(block.get("text"), f"{p}.text")} for p, block in objects(told, "system")]
    return [{"role": "system", "content": _folded(parts)}] if parts else []


def _folded(parts: list[Json]) -> Any:
    """Return parts as a chat's content; a single text is a string."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _output(body: Json) -> Json:
    """Translate ``output_config``: effort and the form of the answer."""
    config = an_object(body.get("output_config") or {}, "output_config")
    found: Json = {}
    if config.get("effort") is not None:
        effort = a_string(config["effort"], "output_config.effort")
        found["reasoning_effort"] = _EFFORTS.get(effort, effort)
    form = config.get("format") or body.get("output_format")
    if form is not None:
        schema = an_object(an_object(form, "output_config.format").get("schema"), "output_config.format.schema")
        described = {"name": "answer", "schema": schema, "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": described}
    return found


# -- tools -------------------------------------------------------------------------------------------------------------


def _tools(body: Json, needs: set[str]) -> Json:
    tools = []
    for path, tool in objects(body.get("tools"), "tools"):
        if tool.get("type") not in {None, "custom"}:
            needs.add(SERVER_TOOLS)
            continue
        a_string(tool.get("name"), f"{path}.name")
        function = kept(tool, ("name", "description", "strict"))
        function["parameters"] = an_object(tool.get("input_schema"), f"{path}.input_schema")
        tools.append({"type": "function", "function": function})
    if not tools:
        return {}
    return {"tools": tools} | (_chosen(body["tool_choice"]) if body.get("tool_choice") is not None else {})


def _chosen(told: Any) -> Json:
    choice = an_object(told, "tool_choice")
    kind = choice.get("type")
    found: Json = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        name = a_string(choice.get("name"), "tool_choice.name")
        return found | {"tool_choice": {"type": "function", "function": {"name": name}}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise bad("tool_choice.type", "must be auto, any, tool or none")
    return found | {"tool_choice": _CHOICES[kind]}


# -- messages ----------------------------------------------------------------------------------------------------------


def _messages(told: Any, needs: set[str]) -> list[Json]:
    if told is None:
        raise missing("messages")
    found: list[Json] = []
    for path, message in objects(told, "messages"):
        role, content = message.get("role"), message.get("content")
        if role not in {"user", "assistant", "system"}:
            raise bad(f"{path}.role", "must be user or assistant")
        if isinstance(content, str):
            found.append({"role": role, "content": content})
        elif not isinstance(content, list):
            raise bad(f"{path}.content", "must be a string or an array of blocks")
        else:
            blocks = objects(content, f"{path}.content")
            found += _assistant(blocks, needs) if role == "assistant" else _user(role, blocks, needs)
    if not found:
        raise bad("messages", "must be a non-empty array")
    return found


def _user(role: str, blocks: list[tuple[str, Json]], needs: set[str]) -> list[Json]:
    """Translate the blocks of a turn; results of tools are messages of their own, and come first."""
    found: list[Json] = []
    parts: list[Json] = []
    for path, block in blocks:
        if block.get("type") == "tool_result":
            _tool_result(found, block, path, needs)
        elif (part := _part(block, path, needs)) is not None:
            parts.append(part)
    # Pictures that a tool returned follow its result as the user's; all results stand together in front of them.
    found.sort(key=lambda message: message["role"] != "tool")
    if parts or not found:
        found.append({"role": role, "content": _folded(parts) if parts else ""})
    return found


def _tool_result(found: list[Json], block: Json, path: str, needs: set[str]) -> None:
    call_id, content = a_string(block.get("tool_use_id"), f"{path}.tool_use_id"), block.get("content")
    if isinstance(content, str) or content is None:
        parts = [{"type": "text", "text": content or ""}]
    else:
        read = [_part(each, where, needs) for where, each in objects(content, f"{path}.content")]
        parts = [part for part in read if part is not None]
    if block.get("is_error"):
        _say_error(parts)
    add_tool_result(found.append, call_id, parts)


def _say_error(parts: list[Json]) -> None:
    """Say in words that a tool failed: a chat has no field for it."""
    text = next((part for part in parts if part["type"] == "text"), None)
    if text is None:
        parts.insert(0, {"type": "text", "text": "Error"})
    elif not text["text"].lower().startswith("error"):
        text["text"] = f"Error: {text['text']}"


def _part(block: Json, path: str, needs: set[str]) -> Json | None:
    """Translate a block of content; None where only a target with this wire can read it."""
    kind = block.get("type")
    reader = _PARTS.get(kind) if isinstance(kind, str) else None
    part = reader(block, path) if reader is not None else None
    if part is None:
        a_string(kind, f"{path}.type")
        needs.add(SERVER_TOOLS)
    return part


def _text(block: Json, path: str) -> Json:
    return {"type": "text", "text": a_string(block.get("text"), f"{path}.text")}


def _image(block: Json, path: str) -> Json | None:
    url = _source_url(an_object(block.get("source"), f"{path}.source"), f"{path}.source")
    return None if url is None else {"type": "image_url", "image_url": {"url": url}}


def _source_url(source: Json, path: str) -> str | None:
    if source.get("type") == "base64":
        data = a_string(source.get("data"), f"{path}.data")
        return f"data:{a_string(source.get('media_type'), f'{path}.media_type')};base64,{data}"
    return a_string(source.get("url"), f"{path}.url") if source.get("type") == "url" else None


def _document(block: Json, path: str) -> Json | None:
    source = an_object(block.get("source"), f"{path}.source")
    title = block.get("title")
    if source.get("type") == "text":
        text = a_string(source.get("data"), f"{path}.source.data")
        return {"type": "text", "text": f"{title}\n\n{text}" if isinstance(title, str) else text}
    if source.get("type") != "base64":
        return None
    return {
        "type": "file",
        "file": {"filename": title or "document.pdf", "file_data": _source_url(source, f"{path}.source")},
    }


_PARTS: dict[str, Callable[[Json, str], Json | None]] = {"text": _text, "image": _image, "document": _document}


def _assistant(blocks: list[tuple[str, Json]], needs: set[str]) -> list[Json]:
    message: Json = {"role": "assistant", "content": None}
    texts: list[str] = []
    for path, block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(a_string(block.get("text"), f"{path}.text"))
        elif kind == "tool_use":
            message.setdefault("tool_calls", []).append(_call(block, path))
        elif kind in {"thinking", "redacted_thinking"}:
            _think(message, block)
        else:
            a_string(kind, f"{path}.type")
            needs.add(SERVER_TOOLS)
    if texts or not message.get("tool_calls"):
        message["content"] = "".join(texts)
    return [message]


def _call(block: Json, path: str) -> Json:
    arguments = orjson.dumps(an_object(block.get("input") or {}, f"{path}.input")).decode()
    function = {"name": a_string(block.get("name"), f"{path}.name"), "arguments": arguments}
    call = {"id": a_string(block.get("id"), f"{path}.id"), "type": "function", "function": function}
    return call | kept(block, ("extra_content",))


def _think(message: Json, block: Json) -> None:
    if isinstance(block.get("thinking"), str):
        message["reasoning_content"] = message.get("reasoning_content", "") + block["thinking"]
    if block.get("signature") or block.get("data"):
        message.setdefault("thinking_blocks", []).append(block)
