"""Roles: who serves each, another target with one press, and the way back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from app.dashboard.shell import Page

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live

_PURPOSE = {
    "small": "complexity 1 to 4",
    "medium": "complexity 5 to 7",
    "large": "complexity 8 to 10",
    "code": "code to be written",
    "polish": "improves weak drafts",
    "analysis": "the analysis tasks",
    "fast": "quick answers",
    "accurate": "careful answers",
    "judge": "compares answers",
    "embedding": "vectors",
    "moderation": "/v1/moderations",
    "transcription": "sound to text",
    "speech": "text to sound",
    "image": "pictures",
}


def _build(live: Live) -> None:
    sources = {"told": "/admin/roles", "lanes": "/admin/breakers"}
    live.panel("roles.html", sources, _roles, partial(_act, live), classes="stack")


PAGE = Page(
    "roles",
    "/roles",
    "Roles",
    "A role is a chain of targets behind one variable. A switch is in force for the next call, on all workers.",
    _build,
)


async def _act(live: Live, act: Act) -> None:
    if act["do"] == "undo":
        told = await live.gateway.send("POST", "/admin/roles/undo")
        live.say(f"Taken back: {_told(told['changes'])}.")
        return
    chain = act.get("chain", "").strip()
    told = await live.gateway.send("POST", "/admin/roles", {"roles": {act["role"]: chain or None}})
    live.say(f"In force: {_told(told['changes'])}." if told["changes"] else "It says that already.")


def _told(changes: list[dict[str, Any]]) -> str:
    return "; ".join(f"{each['variable']}={each['after'] or '(default)'}" for each in changes)


def _roles(told: dict[str, Any], lanes: dict[str, Any]) -> dict[str, Any]:
    """Add what each role is for, and the targets that are known, as suggestions."""
    served = [target.partition("@")[0] for role in told["roles"] for target in role["chain"] + role["in_force"]]
    return {
        "roles": [each | {"purpose": _PURPOSE.get(each["role"], "your own")} for each in told["roles"]],
        "undo": told["undo"],
        "undo_error": told["undo_error"],
        "targets": sorted({*served, *lanes["lanes"]}),
    }
