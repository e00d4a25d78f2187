"""Parity: how tests of cheaper models stand against their references, and arming a role again that was set back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from app.dashboard.render import filled
from app.dashboard.shell import Page

if TYPE_CHECKING:
    from app.dashboard.live import Act, Live

_ENDED = frozenset({"breached", "inconclusive"})
"""States of a test that can be armed again."""
_ORDER = ("breached", "inconclusive", "learning", "certified")
"""What asks for a decision comes first."""
_LEAST_SPAN = 0.02
"""The scale shows at least so much to each side, 1 being all: what is known well is not to look wide."""


def _build(live: Live) -> None:
    live.panel("parity.html", {"told": "/admin/parity"}, _parity, partial(_rearm, live), classes="stack")


PAGE = Page(
    "parity",
    "/parity",
    "Parity",
    "Is the cheaper model as good as its reference? Differences in points: 0 is a tie, -100 loses every time.",
    _build,
)


async def _rearm(live: Live, act: Act) -> None:
    told = await live.gateway.send("POST", "/admin/parity/rearm", {"role": act["role"]})
    targets = ", ".join(dict.fromkeys(each["target"] for each in told["rearmed"]))
    live.say(f"{act['role']}: {targets} is in use again within a second; its test begins anew.")


def _parity(told: dict[str, Any]) -> dict[str, Any]:
    today = told["today"]
    tests = sorted(told["tests"], key=lambda test: _ORDER.index(test["state"]))
    return {
        "tests": [test | {"scale": scale(test), "rearms": test["state"] in _ENDED} for test in tests],
        "today": today | {"used": filled(today["spent_usd"], today["limit_usd"])},
        "events": told["events"],
    }


def scale(test: dict[str, Any]) -> dict[str, float]:
    """Return where a test's bounds, mean and allowed loss lie on a scale, in percent of its width; 50 is a tie."""
    found = {name: value or 0.0 for name, value in test["difference"].items()} | {"margin": -test["margin"]}
    span = min(1.0, 1.1 * max(_LEAST_SPAN, *map(abs, found.values())))
    return {name: round(50 + 50 * max(-1.0, min(1.0, value / span)), 2) for name, value in found.items()}
