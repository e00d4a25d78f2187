from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Running, Start
from tests.upstream import Upstream

_ASK = {"messages": [{"role": "user", "content": "hi"}]}


async def test_models_lists_what_may_stand_in_model(up: Upstream, start: Start) -> None:
    settings = (
        'MODEL_LARGE=up/a/b:c,groq/no-key\nROLES__MINE=up/x\nMODEL_ALIASES={"gpt-4o": "large", "large": "mine"}\n'
    )
    async with start(settings, up=up) as sluice:
        ids = [model["id"] for model in (await sluice.client.get("/v1/models")).json()["data"]]
        assert "task/judge" in ids
        assert "task/map" not in ids  # nobody serves its role
        ids = [name for name in ids if not name.startswith("task/")]
        assert ids == ["auto", "large", "judge", "mine", "gpt-4o", "up/a/b:c", "up/x"]
        for name in ids:
            assert (await sluice.client.get(f"/v1/models/{name}")).json()["id"] == name
            assert (await sluice.chat(name)).status_code == 200
        assert (await sluice.client.get("/models")).status_code == 200
        assert (await sluice.client.get("/v1/models/")).json()["object"] == "list"


async def test_models_without_any_backend_are_none(start: Start) -> None:
    async with start("OLLAMA_ENABLED=false\n") as sluice:
        assert (await sluice.client.get("/v1/models")).json() == {"object": "list", "data": []}
        ready = await sluice.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        assert (await sluice.client.get("/health/live")).json() == {"status": "live"}
        assert (await sluice.chat("auto")).json()["error"]["code"] == "no_usable_backend"


async def test_ready_tells_the_truth_of_each_backend(sluice: Running, up: Upstream) -> None:
    before = (await sluice.client.get("/health/ready")).json()
    assert before["status"] == "ready"
    assert before["backends"]["up"] == {"status": "ready", "why": None}
    assert before["backends"]["groq"] == {"status": "unusable", "why": "set GROQ_API_KEY"}
    assert set(before) == {"status", "backends", "models", "dependencies", "config"}
    assert up.log == []
    await sluice.client.post("/admin/breakers/up/large", json={"state": "open"})
    after = await sluice.client.get("/health/ready")
    assert (after.status_code, after.json()["status"]) == (200, "degraded")
    assert "up/large" in after.json()["backends"]["up"]["why"]


async def test_route_shows_the_plan_and_sends_nothing(sluice: Running, up: Upstream) -> None:
    body = (await sluice.client.post("/v1/route", json=_ASK)).json()
    assert set(body) == {"verdict", "plan", "estimate"}
    assert {"kind", "complexity", "prompt_tokens", "reasons"} == set(body["verdict"])
    assert body["plan"]["candidates"] == ["up/large"]
    assert {"candidates", "check", "on_weak", "why"} <= set(body["plan"])
    assert set(body["estimate"]) == {"cost_usd", "baseline_usd"}
    assert up.log == []


async def test_route_refuses_what_the_call_would(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/large\nUNKNOWN_MODEL=error\n", up=up) as sluice:
        answer = await sluice.client.post("/v1/route", json={**_ASK, "model": "who"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        call = await sluice.chat("who")
        assert (call.status_code, call.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize("order", [{}, {"state": "ajar"}, {"state": None}, {"state": ["open"]}])
async def test_an_order_that_is_none_is_refused(sluice: Running, order: Any) -> None:
    answer = await sluice.client.post("/admin/breakers/up/large", json=order)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "state")


async def test_a_forced_breaker_holds_until_it_is_released(sluice: Running, up: Upstream) -> None:
    opened = (await sluice.client.post("/admin/breakers/up/large", json={"state": "open"})).json()
    assert (opened["lanes"]["up/large"]["state"], opened["lanes"]["up/large"]["forced"]) == ("open", "open")
    refused = await sluice.chat("up/large")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "target_out_of_use")
    assert up.log == []
    await sluice.client.post("/admin/breakers/up/large", json={"state": "auto"})
    assert (await sluice.chat("up/large")).status_code == 200
    lanes = (await sluice.client.get("/admin/breakers")).json()["lanes"]
    assert {"state", "failures", "calls", "opened_at", "next_probe_at", "forced"} <= set(lanes["up/large"])


@pytest.mark.parametrize(("target", "status"), [("nowhere/x", 404), ("up", 400), ("up/", 400)])
async def test_a_breaker_of_nothing(sluice: Running, target: str, status: int) -> None:
    answer = await sluice.client.post(f"/admin/breakers/{target}", json={"state": "open"})
    assert answer.status_code in {status, 404}
    assert answer.json()["error"]["message"]


async def test_config_shows_what_is_in_force(sluice: Running) -> None:
    body = (await sluice.client.get("/admin/config")).json()
    assert body["settings"]["model_large"] == "up/large"
    assert (body["ok"], body["error"], body["shadowed"]) == (True, None, [])


async def test_root_lists_the_endpoints(sluice: Running) -> None:
    assert "POST /v1/chat/completions" in (await sluice.client.get("/")).json()["endpoints"]
