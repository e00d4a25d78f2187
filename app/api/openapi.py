"""The OpenAPI document: the raw endpoints, which the framework does not see, added to those that it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.endpoints import RELAYS, path_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.endpoints import Relay

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_COMMON = {
    "model": {"type": "string", "description": "auto, a role, backend/model-id, or a model's own name"},
    "models": {"type": "array", "items": _TEXT, "description": "further candidates, in order"},
    "user": _TEXT,
}
_CHAT = {
    "type": "object",
    "required": ["messages"],
    "description": "OpenAI's chat completion request; fields that are not listed here are passed on.",
    "properties": {
        **_COMMON,
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
                    "content": {"type": ["string", "array", "null"], "items": {"type": "object"}},
                    "tool_calls": {"type": "array", "items": {"type": "object"}},
                },
            },
        },
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "temperature": {"type": "number"},
        "top_p": {"type": "number"},
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "stop": {"type": ["string", "array"], "items": _TEXT},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object"]},
        "response_format": {"type": "object"},
        "metadata": {"type": "object"},
    },
}
_EMBEDDINGS = {
    "type": "object",
    "required": ["input"],
    "properties": {
        **_COMMON,
        "input": {"type": ["string", "array"], "items": {"type": ["string", "integer", "array"]}},
        "dimensions": {"type": "integer", "minimum": 1},
        "encoding_format": {"enum": ["float", "base64"]},
    },
}
_RESPONSES = {
    "type": "object",
    "required": ["input"],
    "description": "OpenAI's Responses request; see docs/endpoints.md for what is translated.",
    "properties": {
        **_COMMON,
        "input": {"type": ["string", "array"], "items": {"type": "object"}},
        "instructions": {"type": ["string", "null"]},
        "stream": {"type": "boolean"},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object"]},
        "text": {"type": "object"},
        "reasoning": {"type": ["object", "null"]},
        "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
        "previous_response_id": {"type": ["string", "null"]},
        "store": {"type": ["boolean", "null"]},
        "metadata": {"type": ["object", "null"]},
    },
}
_COMPLETIONS = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **_COMMON,
        "prompt": {"type": ["string", "array"], "items": {"type": ["string", "integer", "array"]}},
        "stream": {"type": "boolean"},
        "max_tokens": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        "echo": {"type": "boolean"},
        "logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
        "suffix": {"type": ["string", "null"]},
        "stop": {"type": ["string", "array"], "items": _TEXT},
    },
}
_MESSAGES = {
    "type": "object",
    "required": ["max_tokens", "messages"],
    "description": "Anthropic's Messages request; see docs/endpoints.md for what is translated.",
    "properties": {
        "model": _COMMON["model"],
        "max_tokens": {"type": "integer", "minimum": 1},
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "system": {"type": ["string", "array"], "items": {"type": "object"}},
        "stream": {"type": "boolean"},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": "object"},
        "stop_sequences": {"type": "array", "items": _TEXT},
        "thinking": {"type": "object"},
        "output_config": {"type": "object"},
        "metadata": {"type": "object"},
    },
}


def _operation(
    name: str, summary: str, body: dict[str, Any], answers: dict[str, Any], kind: str = "application/json"
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {kind: {"schema": body}}},
        "responses": {
            "200": {"description": "The answer.", "content": answers},
            "default": {"description": "An error.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }


def _relay(name: str, relay: Relay) -> dict[str, Any]:
    wanted = {"type": "string", "format": "binary"} if relay.form and relay.required != "prompt" else _TEXT
    body = {"type": "object", "required": [relay.required], "properties": {"model": _TEXT, relay.required: wanted}}
    kind = "multipart/form-data" if relay.form else "application/json"
    summary = f"Passed on to the role {relay.role}, or to the target named."
    return {"post": _operation(name, summary, body, {"*/*": {"schema": {}}}, kind)}


_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_STREAMED = {**_OBJECT, "text/event-stream": {"schema": _TEXT}}
_PATHS = {
    "/v1/chat/completions": {
        "post": _operation("chat", "Answer a chat.", _CHAT, {**_OBJECT, "text/event-stream": {"schema": _TEXT}})
    },
    "/v1/embeddings": {"post": _operation("embeddings", "Turn texts into vectors.", _EMBEDDINGS, _OBJECT)},
    "/v1/responses": {"post": _operation("responses", "Answer a response.", _RESPONSES, _STREAMED)},
    "/v1/completions": {"post": _operation("completions", "Go on from prompts.", _COMPLETIONS, _STREAMED)},
    "/v1/messages": {"post": _operation("messages", "Answer a message.", _MESSAGES, _STREAMED)},
    "/v1/route": {"post": _operation("route", "Say what a chat would be judged and sent to.", _CHAT, _OBJECT)},
} | {path_of(name): _relay(name, relay) for name, relay in RELAYS.items()}


def install(app: FastAPI) -> None:
    """Have ``app.openapi`` describe the raw endpoints as well."""
    generate = app.openapi

    def described() -> dict[str, Any]:
        document = generate()
        document["paths"] |= _PATHS
        return document

    app.openapi = described  # type: ignore[method-assign]
