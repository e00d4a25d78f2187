"""Keys: who may call, what each has spent of its budget, a new one, rotating and revoking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.dashboard.gateway import TroubleError
from app.dashboard.render import filled, render
from app.dashboard.shell import Page

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live

_NEAR = 80.0
"""Percent of a budget from which on its bar warns."""
_GRACE_S = 3600
"""How long the old key is good after a rotation: long enough to hand out the new one."""
_NUMBERS = {
    "budget_day_usd": float,
    "budget_month_usd": float,
    "rpm": int,
    "tpm": int,
    "max_parallel": int,
    "expires_days": float,
}
_NAMES = {
    "budget_day_usd": "Budget a day",
    "budget_month_usd": "Budget a month",
    "rpm": "Calls a minute",
    "tpm": "Tokens a minute",
    "max_parallel": "At once",
    "expires_days": "Expires after",
}


class _Keys:
    """One open page: which key is about to be revoked, and the new one that is shown once."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._revoking: str | None = None

    def place(self) -> None:
        self._fresh = self._live.region("div", self.act)
        self._live.panel("keys.html", {"told": "/admin/keys"}, self._view, self.act, tag="section", classes="card")
        new = self._live.region("section", self.act)
        new.classes("card").props('aria-labelledby="new-key"')
        new.put(render("key_new.html"))

    def _view(self, told: dict[str, Any]) -> dict[str, Any]:
        keys = [key | {"budgets": budgets(key)} for key in told["keys"]]
        order = {"active": 0, "expired": 1, "revoked": 2}
        return {"keys": sorted(keys, key=lambda key: order.get(key["state"], 3)), "revoking": self._revoking}

    async def act(self, act: Act) -> None:
        match act["do"]:
            case "create":
                made = await self._live.gateway.send("POST", "/admin/keys", new_key(act))
                self._fresh.put(render("key_made.html", made=made))
            case "hide":
                self._fresh.put("")
            case "ask":
                self._revoking = act["id"]
            case "keep":
                self._revoking = None
            case "rotate":
                made = await self._live.gateway.send("POST", _path(act, "rotate"), {"grace_s": _GRACE_S})
                self._fresh.put(render("key_made.html", made=made))
                self._live.say("A new key is in its place; the old one is good for another hour.")
            case "revoke":
                self._revoking = None
                await self._live.gateway.send("POST", _path(act, "revoke"))
                self._live.say("Revoked: calls with that key are refused within a second.")


PAGE = Page(
    "keys",
    "/keys",
    "Keys",
    "Keys that callers use, with what each has spent of its budget. A budget that is used up refuses calls.",
    lambda live: _Keys(live).place(),
)


def _path(act: Act, action: str) -> str:
    return f"/admin/keys/{quote(act['id'], safe='')}/{action}"


def budgets(key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each budget of a key with how far it is used up."""
    found = []
    for period in ("day", "month"):
        limit, spent = key[f"budget_{period}_usd"], key[f"spent_{period}_usd"] or 0.0
        used = filled(spent, limit) if limit else None
        tone = "" if used is None or used < _NEAR else "bad" if used >= 100 else "warn"  # noqa: PLR2004 - percent
        found.append({"period": period, "limit": limit, "spent": spent, "used": used, "tone": tone})
    return found


def new_key(act: Act) -> dict[str, Any]:
    """Make the body of a new key of what the form says; what is left empty is left out.

    Raises:
        TroubleError: a figure is none.
    """
    body: dict[str, Any] = {"name": act.get("name", "").strip()}
    if act.get("tenant", "").strip():
        body["tenant"] = act["tenant"].strip()
    models = [each.strip() for each in act.get("models", "").split(",") if each.strip()]
    if models:
        body["models"] = models
    for name, kind in _NUMBERS.items():
        text = act.get(name, "").strip()
        if text:
            body[name] = _figure(text, kind, _NAMES[name])
    return body


def _figure(text: str, kind: type[int | float], name: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise TroubleError(f"{name}: {text!r} is no {'whole number' if kind is int else 'number'}.") from None
