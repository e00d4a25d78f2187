"""Gateways whose every role is a scripted model, and calls of tasks through the OpenAI SDK."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.sdk import sdk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import Running

ROLES = "".join(
    f"MODEL_{role.upper()}=up/{role}-full\n"
    for role in ("small", "medium", "large", "analysis", "polish", "judge", "fast", "accurate")
)
"""Every role that a shipped prompt names, behind the scripted upstream; its documents are full."""
_POSTS = [{"telegram_message_id": number, "text": f"Post {number} about databases."} for number in range(1, 13)]
_READINGS = [{"period": f"2026-{month:02}", "kwh": 200 + 10 * month} for month in range(1, 13)]
_PLANS = [{"id": f"plan-{number}", "fixed": 90 + number, "per_kwh": 0.2 + number / 100} for number in range(12)]
INPUTS: dict[str, dict[str, Any]] = {
    "map": {"query": "How do I move to another database?", "posts": _POSTS},
    "medium-scoring": {"query": "How do I move?", "posts": [{"id": n, "text": f"post {n}"} for n in range(1, 13)]},
    "translation": {"text": "Good morning, everybody.", "target_language": "French"},
    "language-validation": {"text": "Guten Morgen, alle zusammen.", "expected_language": "German"},
    "judge": {"conversation": "What is two and two?", "answer_a": "Four.", "answer_b": "Five."},
    "polish": {"ask": "Explain recursion.", "draft": "It is when.", "faults": "- It is too short."},
    "exercise-generation": {"goal": "Clean string crossings", "instrument": "violin", "level": "intermediate"},
    "progression": {"wish": "A melancholy verse", "key": "D minor", "bars": 4},
    "content-validation": {"content": "The key of G major has two sharps."},
    "theory-analysis": {"passage": "Dm7 G7 Cmaj7 A7", "question": "What is the A7 for?"},
    "voicing": {"chords": "Dm7 G7 Cmaj7", "ensemble": "piano"},
    "creative": {"wish": "Two lines about a lost metronome"},
    "tutorial": {"topic": "The blues scale"},
    "curriculum-planning": {"goal": "Play three songs", "weeks": 6},
    "usage-summary": {"usage": _READINGS, "household": "Two people and a heat pump."},
    "plan-scoring": {"plans": _PLANS, "usage": _READINGS},
    "plan-narrative": {"summary": {"total_kwh": 3000}, "scored": {"selected": ["plan-1"]}},
}
"""Good inputs of every shipped task."""
ENERGY = {"usage": _READINGS, "plans": _PLANS, "preferences": "No long contracts."}


@dataclass(frozen=True, slots=True)
class Told:
    """What a task said."""

    headers: Mapping[str, str]
    text: str
    finish: str
    sluice: dict[str, Any]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def call(sluice: Running, model: str, inputs: Any, hints: dict[str, str] | None = None, **more: Any) -> Told:
    """Make a plain call through the SDK; hints are ``x-sluice-…`` headers without their beginning."""
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    headers = {f"x-sluice-{name}": value for name, value in (hints or {}).items()}
    async with sdk(sluice) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": text}], extra_headers=headers, **more
        )
        body = raw.parse()
    choice, beside = body.choices[0], body.to_dict().get("sluice", {})
    assert isinstance(beside, dict)
    return Told(raw.headers, choice.message.content or "", choice.finish_reason, beside)


async def stream(sluice: Running, model: str, inputs: Any, **more: Any) -> tuple[Mapping[str, str], list[Any]]:
    """Make a streamed call through the SDK; return its headers and all chunks."""
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    async with sdk(sluice) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": text}], stream=True, **more
        )
        return raw.headers, [chunk async for chunk in raw.parse()]


async def refused(sluice: Running, model: str, inputs: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    """Make a call that must fail; return the status and the error."""
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    response = await sluice.chat(model, text, **more)
    assert response.status_code >= 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error
