"""Reading the messages of a chat body for the classifier: texts, images, and an estimate of tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

EARLIER = 2000
"""Characters of an earlier message that are looked at for a fenced block."""

PART_LIMIT = 64
"""Text parts joined from one message; further ones are left out."""

IMAGE_TOKENS = 765
"""One image of 1,024 by 1,024 pixels at high detail, by OpenAI's published rule (85 + 4 tiles of 170)."""

MESSAGE_TOKENS = 4
"""What chat templates add to a message (role and separators), about."""

SAMPLE = 512
"""Characters of a text whose bytes are counted; the rest is taken to be like them."""


class Turns(NamedTuple):
    """What the classifier looks at: the last user message, the one before, the system prompt."""

    last: str
    earlier: str
    system: str
    fenced: bool
    images: int


def read(messages: object) -> Turns:
    """Return the turns of a chat body; whatever is malformed counts as empty."""
    turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    users = [turn for turn in turns[-8:] if turn.get("role") == "user"] or turns[-1:]
    last = users[-1] if users else {}
    first = turns[0] if turns else {}
    leads = first.get("role") == "system" or first.get("role") == "developer"  # a role may be unhashable
    system = first if leads and first is not last else {}
    earlier = users[-2] if len(users) > 1 else {}
    return Turns(text_of(last), text_of(earlier), text_of(system), _fenced(turns), _images(last))


def text_of(turn: dict[str, Any]) -> str:
    """Return the text of one message: its content, or its text parts in a row."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content[:PART_LIMIT] if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _fenced(turns: list[dict[str, Any]]) -> bool:
    """Tell whether the newest answer in the conversation holds a fenced block."""
    answers = [turn for turn in turns[-4:] if turn.get("role") == "assistant"]
    return bool(answers) and "```" in text_of(answers[-1])[:EARLIER]


def _images(turn: dict[str, Any]) -> int:
    content = turn.get("content")
    if not isinstance(content, list):
        return 0
    return sum(isinstance(part, dict) and part.get("type") in ("image_url", "input_image") for part in content)


def tokens(messages: object) -> int:
    """Return about how many tokens the messages are, from their length and a sample of their script.

    Of English text about four characters make a token; of other alphabets about two and a half, of Chinese and Japanese
    about one. The share is read from the bytes of a sample: one byte a character, two, three.
    """
    turns = messages if isinstance(messages, list) else []
    return sum(_turn_tokens(turn) for turn in turns if isinstance(turn, dict))


def _turn_tokens(turn: dict[str, Any]) -> int:
    text = text_of(turn)
    return MESSAGE_TOKENS + text_tokens(text) + IMAGE_TOKENS * _images(turn)


def text_tokens(text: str) -> int:
    """Return about how many tokens one text is."""
    if not text:
        return 0
    sample = text[:SAMPLE]
    wide = 1.0 if sample.isascii() else len(sample.encode("utf-8", "surrogatepass")) / len(sample)
    per_token = 4.0 if wide < 1.2 else 2.5 if wide < 2.2 else 1.2  # noqa: PLR2004 (bytes a character by script)
    return int(len(text) / per_token) + 1
