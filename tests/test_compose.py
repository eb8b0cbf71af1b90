"""What is shipped for Docker Compose, read by Compose's own loader, and the relay that it describes."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from processes import ROOT, THIS_TREE, Program, free_port, run

from relay import settings

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, which builds Compose's loader")

LOADER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""What "docker compose config" does, as a program."""
FILE = ROOT / "docker/docker-compose.yml"


def variables(name):
    """Read a file for "docker compose --env-file"."""
    lines = (ROOT / "docker" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


MONITORING, CLUSTER = variables("monitoring.env"), variables("cluster.env")


def load(environment, folder):
    """Resolve the file, in a tree of which it sees all that it may name.

    The loader's program takes no variables into account, so they are put in before.
    """
    shutil.copytree(ROOT / "docker", folder / "docker")
    shutil.copytree(ROOT / "docs/monitoring", folder / "docs/monitoring")
    (folder / "docker/secrets").mkdir()
    for name in ("admin-token", "grafana-password", "cluster-key"):
        (folder / "docker/secrets" / name).write_text("a-token-of-some-length\n")
    text = re.sub(r"\$\{(\w+):-(.*?)\}", lambda m: environment.get(m[1]) or m[2], FILE.read_text())
    (folder / "docker/docker-compose.yml").write_text(text)
    words = ("go", "run", LOADER, "-format", "json", "docker-compose.yml")
    return json.loads(run(*words, cwd=folder / "docker", patience=300).stdout)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return load({}, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def monitored(tmp_path_factory):
    return load(MONITORING, tmp_path_factory.mktemp("monitored"))


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    return load(CLUSTER, tmp_path_factory.mktemp("clustered"))


def test_without_a_profile_there_is_the_relay_alone(plain):
    assert [name for name, service in plain["services"].items() if not service.get("profiles")] == ["relay"]
    relay = plain["services"]["relay"]
    assert (relay["environment"]["VMRELAY_ADMIN"], relay["environment"]["VMRELAY_ADMIN_TOKEN"]) == ("", "")
    assert {plain["secrets"][name]["file"] for name in ("admin-token", "cluster-key")} == {"/dev/null"}
    assert settings.resolve({}, relay["environment"]) == settings.Settings()


def test_every_service_is_confined(monitored):
    assert set(monitored["services"]) == {"relay", "relay-2", "nats", "prometheus", "grafana"}
    for service in monitored["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.keys() & {"cap_add", "privileged", "devices"}
        assert not any("docker.sock" in str(volume.get("source")) for volume in service.get("volumes", ()))
    published = {
        (port["target"], port["protocol"], port.get("host_ip", ""))
        for service in monitored["services"].values()
        for port in service.get("ports", ())
    }
    assert published == {(4433, "udp", ""), (4433, "tcp", ""), (3000, "tcp", "127.0.0.1")}


def test_every_image_has_a_version(monitored):
    for name in ("prometheus", "grafana", "nats"):
        assert re.fullmatch(r"docker\.io/[a-z/]+:v?\d+\.\d+\.\d+", monitored["services"][name]["image"])


@pytest.mark.parametrize("of", ["monitored", "clustered"])
def test_every_path_volume_and_secret_that_is_named_is_there(of, request):
    told = request.getfixturevalue(of)
    services = told["services"].values()
    secrets = {name: Path(secret["file"]) for name, secret in told["secrets"].items()}
    volumes = [volume for service in services for volume in service.get("volumes", ())]
    assert {volume["source"] for volume in volumes if volume["type"] == "volume"} == set(told["volumes"])
    paths = [Path(volume["source"]) for volume in volumes if volume["type"] == "bind"]
    assert len(paths) == 5
    assert all(path.is_file() for path in paths)
    assert all(path.is_file() or path == Path("/dev/null") for path in secrets.values())
    used = {secret["source"] for service in services for secret in service.get("secrets", ())}
    assert used == set(secrets)
    context = Path(told["services"]["relay"]["build"]["context"])
    dockerfile = told["services"]["relay"]["build"]["dockerfile"]
    assert (context / dockerfile).is_file()


def test_every_variable_of_the_file_has_a_default_and_of_the_environments_a_use():
    text = FILE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    assert set(re.findall(r"\$\{(\w+):-", text)) == used
    assert set(MONITORING) | set(CLUSTER) == used | {"COMPOSE_PROFILES"}
    profiles = {
        name for service in yaml.safe_load(text)["services"].values() for name in service.get("profiles", ())
    }
    assert {MONITORING["COMPOSE_PROFILES"], CLUSTER["COMPOSE_PROFILES"]} == profiles


def mounted(service, target):
    """What is at a path of a service's file system."""
    for volume in service["volumes"]:
        if volume["target"] == target:
            return Path(volume["source"])
    raise AssertionError(f"nothing is mounted at {target}")


def secret_at(service, target):
    """Tell which secret is at a path."""
    (found,) = [secret["source"] for secret in service["secrets"] if secret["target"] == str(target)]
    return found


def test_grafana_finds_prometheus_and_the_dashboard(monitored):
    prometheus, grafana = (monitored["services"][name] for name in ("prometheus", "grafana"))
    provisioning = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(mounted(grafana, f"{provisioning}/datasources/vmrelay.yml").read_text())[
        "datasources"
    ]
    # It shares the relay's network, and so its name.
    assert prometheus["network_mode"] == "service:relay"
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://relay:9090", True)
    (provider,) = yaml.safe_load(mounted(grafana, f"{provisioning}/dashboards/vmrelay.yml").read_text())[
        "providers"
    ]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert json.loads(mounted(grafana, home).read_text())["title"] == "vmrelay"
    password = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert password in {secret["target"] for secret in grafana["secrets"]}


def test_prometheus_asks_the_relay_where_it_listens_with_its_token(monitored):
    relay, prometheus = (monitored["services"][name] for name in ("relay", "prometheus"))
    config_file = prometheus["command"][0].removeprefix("--config.file=")
    told = yaml.safe_load(mounted(prometheus, config_file).read_text())
    (job,) = told["scrape_configs"]
    found = settings.resolve({}, relay["environment"])
    assert job["static_configs"] == [{"targets": [str(found.admin)]}]
    (secret,) = prometheus["secrets"]
    assert (secret["source"], secret["target"]) == ("admin-token", job["authorization"]["credentials_file"])
    assert secret_at(relay, found.admin_token) == "admin-token"
    for rules in told["rule_files"]:
        assert mounted(prometheus, str(Path(config_file).parent / rules)).is_file()
    storage = [word.partition("=")[2] for word in prometheus["command"] if "storage.tsdb.path" in word]
    assert mounted(prometheus, *storage) == Path("metrics")


def test_the_relays_of_the_cluster_reach_the_server_with_one_key(clustered):
    services = clustered["services"]
    assert [name for name, each in services.items() if "cluster" in each.get("profiles", ())] == [
        *("nats", "prometheus", "relay-2"),
    ]
    server = services["nats"]["command"][-1]
    relays = [services[name] for name in ("relay", "relay-2")]
    for relay in relays:
        found = settings.resolve({}, relay["environment"])
        assert found.cluster == (f"nats://nats:{server}",)
        assert secret_at(relay, found.cluster_key) == "cluster-key"
        assert set(relay["networks"]) & set(services["nats"]["networks"])
        assert not services["nats"].get("ports")
    assert len({relay["hostname"] for relay in relays}) == 2
    for kind in ("ports", "volumes"):
        one, other = (json.dumps(relay[kind]) for relay in relays)
        assert one != other


def test_prometheus_asks_both_relays_of_the_cluster(clustered):
    relay, other, prometheus = (clustered["services"][name] for name in ("relay", "relay-2", "prometheus"))
    told = yaml.safe_load(mounted(prometheus, "/etc/prometheus/prometheus.yml").read_text())
    (job,) = told["scrape_configs"]
    assert job["static_configs"] == [{"targets": [relay["environment"]["VMRELAY_ADMIN"]]}]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == [other["hostname"]]
    admin = settings.resolve({}, other["environment"]).admin
    assert (admin.host, admin.port) == ("0.0.0.0", found["port"])
    assert all(port["target"] != found["port"] for port in other["ports"])


def test_with_that_environment_a_relay_runs_and_its_commands_find_it(monitored, tmp_path):
    """But for the port, which another relay of this machine may have, and the place of the secret."""
    token = tmp_path / "token"
    shutil.copy(monitored["secrets"]["admin-token"]["file"], token)
    environment = {name: str(value) for name, value in monitored["services"]["relay"]["environment"].items()}
    port = free_port()
    environment |= {"VMRELAY_ADMIN": f"127.0.0.1:{port}", "VMRELAY_ADMIN_TOKEN": str(token)}
    relay = Program(*THIS_TREE, "--port", 0, "--bind", "127.0.0.1", environment=environment)
    try:
        relay.wait_for("admin API at")
        status = run(*THIS_TREE, "status", env=os.environ | environment)
        assert "ROOM" in status.stdout
    finally:
        relay.stop()


def test_podman_compose_reads_it_too(tmp_path):
    read = run(sys.executable, "-m", "podman_compose", "-f", FILE, "config", cwd=tmp_path)
    assert yaml.safe_load(read.stdout)["services"].keys() >= {"relay"}


def test_the_image_says_which_version_it_is():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in (ROOT / "docker/Dockerfile").read_text()
