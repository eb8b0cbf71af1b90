"""What is shipped for Prometheus and Grafana, checked by Prometheus's own tool and against real metrics."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from operators import OperatedRelay
from processes import PATIENCE, Program, Relay, free_port, run
from waiting import wait_until

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
    assert "SUCCESS: 6 rules found" in run("promtool", "check", "rules", FOLDER / "alerts.yml").stdout
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/vmrelay-token", str(tmp_path / "token")))
    (tmp_path / "token").write_text(TOKEN)
    assert "SUCCESS" in run("promtool", "check", "config", config).stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_the_dashboard_and_the_rules_ask_for_metrics_that_there_are_from_the_start(tmp_path, workers):
    relay = OperatedRelay(tmp_path, "--workers", workers)
    try:
        fetched = run("curl", "-sS", "--unix-socket", relay.admin, "http://relay/metrics").stdout
    finally:
        relay.stop()
    there = set(re.findall(r"^# TYPE (\w+)", fetched, re.MULTILINE))
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.+)", (FOLDER / "alerts.yml").read_text())
    named = {name for expression in asked for name in re.findall(r"vmrelay_\w+", expression)}
    assert named
    asked_for = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    missing = asked_for - there
    assert missing == (set() if workers > 1 else {"vmrelay_worker_restarts_total"})


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


GRAFANA = Path(__file__).parent / "grafana"
"""Grafana's own types, as the version in the Compose file has them."""


def complaints(dashboard, folder):
    """What TypeScript says of a dashboard, by Grafana's types."""
    text = f'import type {{ Dashboard }} from "@grafana/schema";\nexport const it: Dashboard = {dashboard};\n'
    (folder / "dashboard.ts").write_text(text)
    (folder / "package.json").write_text('{"type": "module"}')
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(GRAFANA / "node_modules")
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--preserveSymlinks")
    tsc = GRAFANA / "node_modules/typescript/bin/tsc"
    return run("node", tsc, *options, folder / "dashboard.ts", check=False, patience=120, cwd=folder).stdout


def test_the_dashboard_is_one_by_grafanas_own_types(tmp_path):
    run(FOLDER.parents[1] / "scripts/npm.sh", GRAFANA.relative_to(FOLDER.parents[1]), patience=300)
    shipped = (FOLDER / "grafana.json").read_text()
    assert complaints(shipped, tmp_path) == ""
    for right, wrong in (('"schemaVersion": 39', '"schemaVersion": "39"'), ('"gridPos"', '"gridPosition"')):
        assert right in shipped
        assert "error TS" in complaints(shipped.replace(right, wrong), tmp_path)


def test_the_versions_of_grafana_are_one():
    compose = (FOLDER.parents[1] / "docker/docker-compose.yml").read_text()
    version = json.loads((GRAFANA / "package.json").read_text())["devDependencies"]["@grafana/schema"]
    assert f"grafana/grafana:{version}\n" in compose


def test_prometheus_asks_a_relay_and_evaluates_the_rules(tmp_path):
    """As docs/monitoring/prometheus.yml has it, but for the ports and where the token is."""
    token, admin, web = tmp_path / "token", free_port(), free_port()
    token.write_text(TOKEN)
    config = (FOLDER / "prometheus.yml").read_text()
    for theirs, ours in (("127.0.0.1:9433", f"127.0.0.1:{admin}"), ("/etc/prometheus/vmrelay-token", token)):
        assert theirs in config
        config = config.replace(theirs, str(ours))
    (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\n{config}")
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    relay = Relay("--admin", f"127.0.0.1:{admin}", "--admin-token", token)
    prometheus = Program(
        *("prometheus", f"--config.file={tmp_path / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{web}"),
    )
    try:
        prometheus.wait_for("Server is ready to receive web requests")
        wait_until(lambda: value(web, 'up{job="vmrelay"}') == 1)
        assert value(web, "vmrelay_pool_addresses") == 245
        rules = ask(web, "rules")["groups"][0]["rules"]
        assert len(rules) == 6
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        prometheus.stop()
        relay.stop()


def ask(port, what):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=PATIENCE) as answer:
        return json.load(answer)["data"]


def value(port, query):
    """The one value of a query, if there is one."""
    found = ask(port, f"query?query={urllib.parse.quote(query)}")["result"]
    return float(found[0]["value"][1]) if len(found) == 1 else None
