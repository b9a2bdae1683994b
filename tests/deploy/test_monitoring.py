"""The Prometheus alerts and the Grafana dashboard: their expressions are valid, and ask for what aimux exports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from aimux.metering.exposition import render
from aimux.metering.metrics import Metrics
from aimux.metering.record import RequestRecord
from aimux.plugin import Credential, LimitWindow, Usage
from tests.tools import checkout, program

FOLDER = checkout() / "deploy/monitoring"
# What Grafana puts in before it asks, each by something of its kind.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$provider": ".*"}


class Account:
    name, provider, in_flight, status = "one", "claude", 0, "healthy"
    credential = Credential("oauth", "secret", expires_at=1.0)
    limits = {"5h": LimitWindow("5h", used=0.5)}

    def state(self, now: float) -> Account:
        return self


def exported() -> set[str]:
    """Every time series of a gateway that has done a bit of everything, with its labels' names: `name{a,b}`."""
    metrics = Metrics(accounts=lambda: [Account()], certificate_not_after=lambda: 1.0, per_user=True)
    usage = Usage("m", input_tokens=1, output_tokens=1, reasoning_tokens=1)
    metrics.record(
        RequestRecord(
            "id",
            0.0,
            "POST",
            "/",
            provider="claude",
            account="one",
            user="u",
            status=200,
            ttfb=0.1,
            error="e",
            usage=usage,
        )
    )
    metrics.refresh("claude", "one", "ok")
    names = set()
    for line in render(metrics)[0].decode().splitlines():
        if match := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line):
            labels = re.findall(r'(\w+)="', match[2] or "")
            names |= {match[1], *(f"{match[1]}.{label}" for label in labels)}
    return names


def panel_expressions() -> Iterator[str]:
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            expression: str = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression


def alert_expressions() -> Iterator[str]:
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_every_series_and_label_is_exported() -> None:
    there = exported()
    for expression in [*panel_expressions(), *alert_expressions()]:
        found = re.findall(r"\b((?:aimux|process)_[a-z_]+)(?:\{([^}]*)\})?", expression)
        assert found or expression == 'up{job="aimux"} == 0', expression
        for name, selector in found:
            assert name in there
            for label in re.findall(r"(\w+)(?:=~|!~|!=|=)", selector):
                assert label == "instance" or f"{name}.{label}" in there


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    promtool = program("promtool", "prometheus")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test() -> None:
    tested = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case.get("exp_alerts")}
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}


def test_promtool_accepts_the_dashboards_expressions(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(panel_expressions())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    command = [program("promtool", "prometheus"), "check", "rules", str(tmp_path / "panels.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_account_of_several_nodes_is_one_that_can_serve(tmp_path: Path) -> None:
    rule = {"record": "panel", "expr": next(panel_expressions())}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": [rule]}]}))
    series = 'aimux_account_state{provider="claude", state="healthy", instance="%s", account="%s"}'
    told = {("a", "one"): 1, ("b", "one"): 1, ("a", "two"): 0, ("b", "two"): 1, ("a", "three"): 0, ("b", "three"): 0}
    test = {
        "input_series": [{"series": series % place, "values": f"{value}x5"} for place, value in told.items()],
        "promql_expr_test": [
            {"expr": "panel", "eval_time": "2m", "exp_samples": [{"labels": 'panel{provider="claude"}', "value": 2}]}
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["panels.yaml"], "tests": [test]}))
    command = [program("promtool", "prometheus"), "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    cells = [
        (place["x"] + dx, place["y"] + dy)
        for place in (panel["gridPos"] for panel in panels)
        for dx in range(place["w"])
        for dy in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
