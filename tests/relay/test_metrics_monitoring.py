"""What is shipped for Prometheus and Grafana, checked by Prometheus's own tool and against real metrics."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from processes import PATIENCE, Relay, free_port, run

from guest.relay_socket import RelayPeer

FOLDER = Path(__file__).parents[2] / "docs/monitoring"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """What a relay with a guest says."""
    token, port = tmp_path_factory.mktemp("token") / "token", free_port()
    token.write_text(TOKEN)
    relay = Relay("--admin", f"127.0.0.1:{port}", "--admin-token", token)
    peer = RelayPeer(relay.url, insecure=True)
    try:
        fetched = run(
            *("curl", "-sS", "--max-time", PATIENCE, "-H", f"Authorization: Bearer {TOKEN}"),
            f"http://127.0.0.1:{port}/metrics",
        )
    finally:
        peer.close()
        relay.stop()
    return fetched.stdout


def test_promtool_finds_nothing_wrong_with_the_metrics(metrics, tmp_path):
    (tmp_path / "metrics").write_text(metrics)
    done = run("sh", "-c", f"promtool check metrics < {tmp_path / 'metrics'}")
    assert (done.stdout, done.stderr) == ("", "")


def test_promtool_takes_the_rules_and_the_configuration(tmp_path):
    assert "SUCCESS: 5 rules found" in run("promtool", "check", "rules", FOLDER / "alerts.yml").stdout
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/vmrelay-token", str(tmp_path / "token")))
    (tmp_path / "token").write_text(TOKEN)
    assert "SUCCESS" in run("promtool", "check", "config", config).stdout


def test_the_dashboard_and_the_rules_ask_for_metrics_that_there_are(metrics):
    there = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.+)", (FOLDER / "alerts.yml").read_text())
    named = {name for expression in asked for name in re.findall(r"vmrelay_\w+", expression)}
    assert named
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= there


def test_the_dashboards_queries_are_promql(tmp_path):
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    rules = [
        {"record": f"check:panel{panel['id']}_{target['refId']}", "expr": target["expr"]}
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    text = json.dumps({"groups": [{"name": "check", "rules": rules}]})
    text = text.replace("$__rate_interval", "5m").replace("$instance", ".*")
    (tmp_path / "rules.yml").write_text(text)  # JSON is YAML
    assert f"{len(rules)} rules found" in run("promtool", "check", "rules", tmp_path / "rules.yml").stdout
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))
