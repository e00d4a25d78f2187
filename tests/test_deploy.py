"""What is deployed beside Sluice: images, compose, Prometheus, Grafana, Kubernetes; checked by programs."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
_ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")

# Series that make an alert fire: (series, values), and the time at which it has fired.
_FIRES: dict[str, tuple[list[tuple[str, str]], str]] = {
    "SluiceDown": ([('up{job="sluice", instance="a"}', "0x60")], "2m"),
    "SluiceErrorRatio": (
        [
            ('sluice_requests_total{outcome="ok"}', "0+60x60"),
            ('sluice_requests_total{outcome="error"}', "0+10x60"),
        ],
        "20m",
    ),
    "SluiceBreakerOpen": ([('sluice_breaker_state{target="groq/m"}', "2x60")], "5m"),
    "SluiceConfigurationNotLoaded": ([("sluice_config_ok", "0x60")], "5m"),
    "SluiceUnpriced": ([('sluice_unpriced_total{target="a/b"}', "0+1x60")], "10m"),
    "SluiceBudgetNear": ([('sluice_budget_used_ratio{period="day"}', "0.81x60")], "1m"),
    "SluiceLedgerSpills": ([("sluice_ledger_spill_bytes", "2048x60"), ("sluice_ledger_waiting_rows", "0x60")], "5m"),
    "SluiceLedgerRowsLost": ([('sluice_ledger_rows_total{result="no_room"}', "0+1x60")], "10m"),
    "SluiceParityBreached": ([('sluice_parity_state{role="fast", task="none", target="groq/m"}', "3x60")], "1m"),
    "SluiceOverheadHigh": (
        [
            ('sluice_overhead_seconds_bucket{le="0.05"}', "0+1x60"),
            ('sluice_overhead_seconds_bucket{le="0.1"}', "0+60x60"),
            ('sluice_overhead_seconds_bucket{le="+Inf"}', "0+60x60"),
        ],
        "30m",
    ),
}


# An hour in which all is as well as it has to be, just short of each alert.
_QUIET = [
    ('up{job="sluice", instance="a"}', "1x60"),
    ('sluice_requests_total{outcome="ok"}', "0+60x60"),
    ('sluice_requests_total{outcome="error"}', "0+3x60"),
    ('sluice_breaker_state{target="groq/m"}', "1x20 2 1x40"),
    ("sluice_config_ok", "1x60"),
    ('sluice_unpriced_total{target="a/b"}', "7x60"),
    ('sluice_budget_used_ratio{period="day"}', "0.79x60"),
    ('sluice_budget_used_ratio{period="month"}', "0.5x60"),
    ("sluice_ledger_spill_bytes", "0x20 2048 0x40"),
    ("sluice_ledger_waiting_rows", "4000x60"),
    ('sluice_ledger_rows_total{result="no_room"}', "7x60"),
    ('sluice_ledger_rows_total{result="spilled"}', "0+9x60"),
    ('sluice_parity_state{role="fast", task="none", target="groq/m"}', "2x60"),
    ('sluice_overhead_seconds_bucket{le="0.05"}', "0+600x60"),
    ('sluice_overhead_seconds_bucket{le="0.1"}', "0+602x60"),
    ('sluice_overhead_seconds_bucket{le="+Inf"}', "0+603x60"),
]


def _quiet() -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in _QUIET],
        "promql_expr_test": [{"expr": "ALERTS{alertstate='firing'}", "eval_time": f"{m}m"} for m in range(1, 60)],
    }


def _firing(rule: dict[str, Any]) -> dict[str, Any]:
    series, at = _FIRES[rule["alert"]]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


@needs_promtool
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    alerts = DEPLOY / "prometheus" / "alerts.yml"
    tests = {"rule_files": [str(alerts)], "tests": [_quiet(), *map(_firing, _ALERTS)]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    for words in (["check", "rules", str(alerts)], ["test", "rules", str(tmp_path / "tests.yml")]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/", ""))
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_hardened_and_limited() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(compose["services"]) == {"sluice", "dashboard", "redis", "postgres", "prometheus", "grafana"}
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "env_file" not in service, name
        built = "build" in service
        assert built or (service["healthcheck"] and service["user"]), name
        assert built or ":latest" not in service["image"], name


def test_images_run_as_nobody_special_and_take_only_what_is_locked() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = text.split("\nFROM ")
    users = [re.findall(r"^USER (\w+)", stage, re.MULTILINE) for stage in stages]
    assert [each[-1] for each in users if each] == [
        "10001"
    ] * 2  # the base of all that serve, and one that adds as root
    assert text.count("--require-hashes") == 3
    assert text.count("HEALTHCHECK") == 2
    assert stages[-1].startswith("serving AS gateway")  # what `docker build .` makes
    modules = re.findall(r"[\w.]+", stages[-1].partition('"import ')[2].partition('"')[0])
    assert "app.main" in modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_grafanas_files_are_what_it_reads() -> None:
    for name in ("overview", "money", "engine"):
        board = json.loads((DEPLOY / "grafana" / f"{name}.json").read_text())
        assert board["uid"] == f"sluice-{name}"
        for panel in board["panels"]:
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
            assert panel["targets"]
    source = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["uid"] == "prometheus"


def test_kubernetes_runs_what_the_image_runs() -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes" / "sluice.yaml").read_text())}
    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "serve"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert documents["Service"]["spec"]["selector"] == documents["Deployment"]["spec"]["selector"]["matchLabels"]
