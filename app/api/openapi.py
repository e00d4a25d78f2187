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
_PATHS = {
    "/v1/chat/completions": {
        "post": _operation("chat", "Answer a chat.", _CHAT, {**_OBJECT, "text/event-stream": {"schema": _TEXT}})
    },
    "/v1/embeddings": {"post": _operation("embeddings", "Turn texts into vectors.", _EMBEDDINGS, _OBJECT)},
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
