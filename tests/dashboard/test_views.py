"""What panels make of what the gateway says, without a browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from app.dashboard.config import Config
from app.dashboard.gateway import Gateway, TroubleError
from app.dashboard.render import render
from app.settings import Live
from tests.conftest import Running

# NiceGUI takes seconds to import: only where it is needed.
pytestmark = pytest.mark.skipif(find_spec("nicegui") is None, reason="the extra 'dashboard' is not installed")
_KEY: dict[str, Any] = {
    "id": "key_1", "name": "<b>shop</b>", "key": "sk-sluice-ab…yz", "state": "active", "models": ["small"], "rpm": 60,
    "tpm": None, "max_parallel": None, "budget_day_usd": 10.0, "budget_month_usd": None, "spent_day_usd": 9.0,
    "spent_month_usd": 40.0, "expires_at": "2027-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.mark.parametrize(
    ("spent", "used", "tone"), [(0.0, 0, ""), (7.9, 79, ""), (8.0, 80, "warn"), (10.0, 100, "bad"), (50.0, 100, "bad")]
)
def test_a_budgets_bar_warns_before_it_is_used_up(spent: float, used: float, tone: str) -> None:
    from app.dashboard.pages.keys import budgets

    day, month = budgets(_KEY | {"spent_day_usd": spent})
    assert (day["used"], day["tone"]) == (pytest.approx(used), tone)
    assert (month["used"], month["spent"]) == (None, 40.0)


def test_a_key_is_shown_escaped_with_its_limits() -> None:
    from app.dashboard.pages.keys import budgets

    keys = [_KEY | {"budgets": budgets(_KEY)}]
    shown = render("keys.html", keys=keys, revoking=None, trouble=None)
    assert "&lt;b&gt;shop" in shown
    assert "<b>" not in shown
    for told in ("$9.00 of $10.00", "60 calls/min · only small · until 2027-01-01", "90 % used"):
        assert told in shown
    assert "For good?" in render("keys.html", keys=keys, revoking="key_1", trouble=None)


def test_a_new_key_says_only_what_was_filled_in() -> None:
    from app.dashboard.pages.keys import new_key

    form = {
        "do": "create",
        "name": " shop ",
        "tenant": "",
        "models": "small, groq/*,",
        "rpm": "60",
        "budget_day_usd": "2.5",
    }
    assert new_key(form) == {"name": "shop", "models": ["small", "groq/*"], "rpm": 60, "budget_day_usd": 2.5}
    with pytest.raises(TroubleError, match=r"Calls a minute: '6\.5' is no whole number"):
        new_key({"name": "x", "rpm": "6.5"})


def test_every_state_of_a_local_model_has_its_card() -> None:
    from app.dashboard.pages.models import _models

    states: dict[str, Any] = {
        "mlx/a": {"state": "absent"},
        "mlx/b": {"state": "downloading", "done_bytes": 41, "total_bytes": 100},
        "mlx/c": {"state": "loading", "percent": 12.4},
        "mlx/d": {"state": "ready", "bytes": 2_000_000_000, "running": 1, "waiting": 0, "ttl_left_s": 600},
        "mlx/e": {"state": "failed", "error": {"message": "set HF_TOKEN"}},
    }
    memory = {"active_bytes": 5e8, "budget_bytes": 1e9}
    told = {"models": states, "engines": [{"memory": memory, "requests": None}], "problem": None}
    shown = render("models.html", trouble=None, **_models(told))
    for text in (
        "absent",
        "downloading 41 %",
        'aria-valuenow="41"',
        "loading 12 %",
        "2.0 GB",
        "set HF_TOKEN",
        "500.0 MB of",
    ):
        assert text in shown
    assert shown.count('role="progressbar"') == 2


def test_parity_without_a_test_says_how_to_begin_one() -> None:
    from app.dashboard.pages.parity import _parity

    told = {"tests": [], "today": {"spent_usd": 0.0, "limit_usd": 0.0}, "events": []}
    shown = render("parity.html", trouble=None, **_parity(told))
    assert "No test has a sample yet" in shown
    assert "PARITY__&lt;ROLE&gt;__REFERENCE" in shown


@pytest.mark.parametrize(
    ("difference", "places"),
    [
        ({"low": -0.01, "mean": 0.0, "high": 0.01}, {"low": 27.27, "mean": 50.0, "high": 72.73, "margin": 4.55}),
        ({"low": -1.0, "mean": None, "high": 1.0}, {"low": 0.0, "mean": 50.0, "high": 100.0, "margin": 49.0}),
        ({"low": -0.5, "mean": -0.4, "high": -0.3}, {"low": 4.55, "mean": 13.64, "high": 22.73, "margin": 48.18}),
    ],
)
def test_a_tests_bounds_lie_where_they_belong(difference: dict[str, Any], places: dict[str, float]) -> None:
    from app.dashboard.pages.parity import scale

    assert scale({"difference": difference, "margin": 0.02}) == places


async def test_what_is_young_is_not_asked_for_again_and_trouble_keeps_what_was_known(
    sluice: Running, tmp_path: Path
) -> None:
    env = tmp_path / "dashboard.env"
    env.write_text(f"DASHBOARD_GATEWAY_URL={str(sluice.client.base_url).rstrip('/')}\n")
    gateway = Gateway(Config(Live(env)))
    first = await gateway.ask("/admin/roles")
    assert first.value["roles"]
    assert await gateway.ask("/admin/roles") is first
    gateway.forget()
    assert await gateway.ask("/admin/roles") is not first
    missing = await gateway.ask("/admin/nothing")
    assert missing.value is None
    assert missing.trouble is not None
    assert missing.trouble.status == 404
    without = (await gateway.ask("/admin/parity")).trouble
    assert without is not None
    assert without.message == "Parity needs the database: DATABASE_URL is off."
    assert "/health/ready" in without.remedy
    env.write_text("DASHBOARD_GATEWAY_URL=http://127.0.0.1:9\n")
    lost = Gateway(Config(Live(env)))
    with pytest.raises(TroubleError, match="does not answer"):
        await lost.get("/admin/roles")
    await gateway.close()
    await lost.close()
