"""The endpoints beside chat, as data: where each is, which role serves it, and what its body must have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relay:
    """An endpoint whose calls are passed on as they are.

    Attributes:
        path: below a base URL.
        role: serves calls that name no model, or one that nobody knows.
        required: the field of the body that every call has.
        form: whether bodies come as ``multipart/form-data``, with a file.
    """

    path: str
    role: str
    required: str
    form: bool = False


RELAYS: dict[str, Relay] = {
    "moderations": Relay("/moderations", "moderation", "input"),
    "transcriptions": Relay("/audio/transcriptions", "transcription", "file", form=True),
    "translations": Relay("/audio/translations", "transcription", "file", form=True),
    "speech": Relay("/audio/speech", "speech", "input"),
    "images": Relay("/images/generations", "image", "prompt"),
    "image_edits": Relay("/images/edits", "image", "prompt", form=True),
    "image_variations": Relay("/images/variations", "image", "image", form=True),
}
"""By the endpoint's name in records and metrics; the same name is the ability that a backend may lack."""

ROLES = {"embeddings": "embedding"} | {name: relay.role for name, relay in RELAYS.items()}
"""The roles of endpoints that no classifier judges."""

EXAMPLES = {
    "embedding": "openai/text-embedding-3-small",
    "moderation": "openai/omni-moderation-latest",
    "transcription": "openai/whisper-1",
    "speech": "openai/tts-1",
    "image": "openai/gpt-image-1",
}
"""What a role may be set to; OpenAI's own names."""


def path_of(endpoint: str) -> str:
    """Return where an endpoint is, as a caller writes it."""
    return f"/v1{RELAYS[endpoint].path}" if endpoint in RELAYS else "/v1/embeddings"
