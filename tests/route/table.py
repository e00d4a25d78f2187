"""A catalogue for tests: what targets lack and how large their windows are, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.call import Ask, Hints, Target, Verdict
from app.route.classify_text import tokens
from app.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Sequence

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@dataclass
class Table:
    """What is known of targets, by the name of the model."""

    lacking: dict[str, set[str]] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)

    def lacks(self, target: Target) -> frozenset[str]:
        return frozenset(self.lacking.get(target.model, ()))

    def window(self, target: Target) -> int | None:
        return self.windows.get(target.model)


def ask(messages: Sequence[dict[str, Any]] = HI, hints: Hints | None = None, **more: Any) -> Ask:
    return Ask("chat", {"model": "auto", "messages": list(messages), **more}, hints or Hints(), "test", 0.0, "req")


def verdict(messages: Sequence[dict[str, Any]] = HI, kind: str = "chat", complexity: int | None = 1) -> Verdict:
    return Verdict(kind, complexity, tokens(list(messages)))


def settings(tmp_path: Path, text: str = "") -> Settings:
    """Settings with backends ``up`` and ``near``; roles small, medium, large, code and polish at ``up``."""
    roles = "".join(f"MODEL_{role}=up/{role.lower()}\n" for role in ("SMALL", "MEDIUM", "LARGE", "CODE", "POLISH"))
    backends = "BACKENDS__UP__BASE_URL=http://up.invalid/v1\nBACKENDS__NEAR__BASE_URL=http://127.0.0.1:9/v1\n"
    path = tmp_path / ".env"
    path.write_text(backends + roles + text)
    return load(path)
