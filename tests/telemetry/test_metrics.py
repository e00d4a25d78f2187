from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.call import Target
from app.telemetry.metrics import BUCKETS, Metrics
from app.trace import Attempt, Record, Usage
from tests.conftest import Running, Start
from tests.upstream import Upstream

_NAMES = {
    "sluice_requests": {"endpoint", "target", "role", "outcome"},
    "sluice_stage_seconds": {"stage"},
    "sluice_overhead_seconds": set(),
    "sluice_time_to_first_token_seconds": {"target"},
    "sluice_time_per_output_token_seconds": {"target"},
    "sluice_tokens": {"target", "kind"},
    "sluice_inflight": set(),
    "sluice_errors": {"error_type"},
    "sluice_config_ok": set(),
}


def _families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def _value(text: str, name: str, **labels: str) -> float:
    samples = [sample for family in _families(text).values() for sample in family.samples]
    return float(sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items()))


async def test_names_and_labels(sluice: Running) -> None:
    await sluice.chat("auto", stream=True)
    await sluice.chat("up/m-400")
    answer = await sluice.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = _families(answer.text)
    for name, labels in _NAMES.items():
        found = {label for sample in families[name].samples for label in sample.labels} - {"le"}
        assert found == labels, name
    assert families["sluice_requests"].type == "counter"
    assert "sluice_requests_total{" in answer.text


async def test_no_label_is_a_callers_string(sluice: Running) -> None:
    odd = "evil-9713"
    headers = {"x-sluice-task": odd, "x-sluice-session": odd, "x-request-id": odd}
    await sluice.chat(f"up/{odd}", headers=headers, metadata={"sluice_task": odd}, user=odd)
    await sluice.chat(odd, stream=True)
    await sluice.chat(f"up/{odd}-500", stream=True)
    await sluice.client.get(f"/{odd}")
    text = (await sluice.client.get("/metrics")).text
    assert odd not in text
    assert _value(text, "sluice_requests_total", target="up/other") == 1
    types = {sample.labels["error_type"] for sample in _families(text)["sluice_errors"].samples}
    assert all(each.startswith(("caller_", "policy_", "backend_", "sluice_")) for each in types)


async def test_calls_are_counted_by_what_became_of_them(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/m-500,up/ok\nRETRIES=0\n", up=up) as sluice:
        for _ in range(3):
            assert (await sluice.chat("auto")).status_code == 200
        await sluice.chat("up/m-400")
        await sluice.client.post("/v1/chat/completions", content=b"{")
        text = (await sluice.client.get("/metrics")).text
    assert _value(text, "sluice_requests_total", outcome="ok", role="large", target="up/ok") == 3
    assert _value(text, "sluice_requests_total", outcome="error") == 2
    assert _value(text, "sluice_errors_total", error_type="backend_invalid") == 1
    assert _value(text, "sluice_errors_total", error_type="caller_invalid_request") == 1
    assert _value(text, "sluice_fallbacks_total", reason="server_error") == 3
    assert _value(text, "sluice_tokens_total", target="up/ok", kind="completion") > 0
    assert _value(text, "sluice_inflight") == 0


async def test_our_overhead_leaves_the_backends_time_out(sluice: Running) -> None:
    await sluice.chat("up/m-slow:0.3")
    await sluice.chat("up/m-slow:0.3", stream=True)
    text = (await sluice.client.get("/metrics")).text
    assert _value(text, "sluice_overhead_seconds_count") == 2
    assert _value(text, "sluice_overhead_seconds_sum") < 0.2
    assert _value(text, "sluice_stage_seconds_sum") > 0.6
    assert _value(text, "sluice_time_to_first_token_seconds_sum") > 0.3


async def test_what_was_observed_last_is_counted_at_the_end(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/ok\n", up=up) as sluice:
        for _ in range(3):
            assert (await sluice.chat("auto")).status_code == 200
    labels = {"endpoint": "chat", "target": "up/ok", "role": "large", "outcome": "ok"}
    assert sluice.gateway.metrics._registry.get_sample_value("sluice_requests_total", labels) == 3


async def test_a_call_is_counted_under_its_target_though_a_reload_forgot_it(up: Upstream, start: Start) -> None:
    async with start("MODEL_LARGE=up/before\n", up=up) as sluice:
        assert (await sluice.chat("auto")).status_code == 200
        sluice.env.write_text(sluice.env.read_text().replace("up/before", "up/after"))
        assert (await sluice.client.post("/admin/reload")).status_code == 200
        text = (await sluice.client.get("/metrics")).text
    assert _value(text, "sluice_requests_total", target="up/before") == 1


def test_a_record_that_cannot_be_counted_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def is_own(target: Target) -> bool:
        if target.model == "odd":
            raise LookupError
        return True

    metrics = Metrics()
    metrics.add_money(is_own)
    for target in (Target("b", "a"), Target("b", "odd"), Target("b", "a")):
        tried = (Attempt(target, "ok"),)
        metrics.observe(Record("r", "chat", "t", False, "ok", 200, target, None, None, tried, None, {}, 1.0, 1.0))
    text = metrics.text().decode()
    assert _value(text, "sluice_requests_total", target="b/a") == 2
    assert _value(text, "sluice_calls_avoided_total", reason="local") == 2
    assert "counting failed on the record of r" in caplog.text


def test_buckets_fit_50_us_and_5_min() -> None:
    assert (BUCKETS[0], BUCKETS[-1]) == (0.00005, 300)
    assert list(BUCKETS) == sorted(BUCKETS)


def test_a_record_is_counted_whole() -> None:
    metrics = Metrics()
    target = Target("b", "m")
    attempts = (
        Attempt(target, "timeout"),
        Attempt(target, "cut"),
        Attempt(Target("c", "m"), "ok", 1.0, Usage(5, 7, 2, 3)),
    )
    record = Record(
        "r", "chat", "t", True, "ok", 200, target, "large", None, attempts, None, {"parse": 1.0}, 10.0, 8.0,
        first_token_ms=4.0, per_token_ms=2.0, rescued=("restart",),
    )  # fmt: skip
    metrics.observe(record)
    text = metrics.text().decode()
    kinds = ("prompt", "completion", "cached", "reasoning")
    told = {kind: _value(text, "sluice_tokens_total", kind=kind) for kind in kinds}
    assert told == {"prompt": 5, "completion": 7, "cached": 2, "reasoning": 3}
    assert _value(text, "sluice_retries_total", reason="timeout") == 1
    assert _value(text, "sluice_fallbacks_total", reason="cut") == 1
    assert _value(text, "sluice_rescues_total", how="restart") == 1
    assert _value(text, "sluice_overhead_seconds_sum") == 0.002
