"""The manifests for Kubernetes: built by kustomize, checked by the schemas of its versions and by a relay."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from processes import PATIENCE, ROOT, THIS_TREE, Program, free_port, run

from relay import settings
from relay.tokens import make_key, public_half

pytestmark = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("go")), reason="needs kubectl, or Go, which builds kustomize"
)

BUILDER = "sigs.k8s.io/kustomize/kustomize/v5@v5.5.0"
FOLDERS = ("kubernetes", "kubernetes-cluster")
KUSTOMIZE = ("kubectl", "kustomize") if shutil.which("kubectl") else ("go", "run", BUILDER, "build")
VERSIONS = ("1.26", "1.32", "1.37")
"""The oldest that is promised (Services with UDP and TCP), and the newest that there are schemas of."""
KEYS = {"keys": [public_half(make_key("EdDSA"))]}
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The folders, with secrets."""
    examples = tmp_path_factory.mktemp("kubernetes")
    for name in FOLDERS:
        shutil.copytree(ROOT / "examples" / name, examples / name)
        (examples / name / "secrets").mkdir()
    (examples / "kubernetes/secrets/keys.json").write_text(json.dumps(KEYS))
    (examples / "kubernetes/secrets/admin-token").write_text(f"{TOKEN}\n")
    (examples / "kubernetes-cluster/secrets/cluster-key").write_text("11" * 32)
    return examples


def build(folder):
    """Give what "kubectl apply -k" would apply."""
    return list(yaml.safe_load_all(run(*KUSTOMIZE, folder, patience=300).stdout))


@pytest.fixture(scope="module")
def built(examples):
    return build(examples / "kubernetes")


@pytest.fixture(scope="module")
def clustered(examples):
    """Those of several relays, by kind and name."""
    found = {}
    for thing in build(examples / "kubernetes-cluster"):
        name = thing["metadata"]["name"]
        if thing["kind"] in {"Secret", "ConfigMap"}:  # theirs end in a hash of what they have
            name = name.rpartition("-")[0]
        found[thing["kind"], name] = thing
    return found


@pytest.fixture(scope="module")
def one(built):
    """The one object of each kind."""
    kinds = [thing["kind"] for thing in built]
    assert len(kinds) == len(set(kinds))
    return {thing["kind"]: thing for thing in built}


@pytest.fixture(scope="module")
def pod(one):
    return one["StatefulSet"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_field(built, clustered, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for thing in (*built, *clustered.values()):
        kubernetes_validate.validate(thing, version, strict=True)


def test_the_schemas_refuse_what_is_not_known(built):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    wrong = json.loads(json.dumps(next(thing for thing in built if thing["kind"] == "StatefulSet")))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["every"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_namespace_takes_the_pod_under_the_restricted_standard(one, pod, container):
    labels = one["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {thing["metadata"].get("namespace", "vmrelay") for thing in one.values()} == {"vmrelay"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "docker/Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Of the sysctls that need no leave of the node's.
    assert [entry["name"] for entry in pod["securityContext"]["sysctls"]] == ["net.ipv4.ping_group_range"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert all(port.keys() <= {"name", "containerPort", "protocol"} for port in container["ports"])
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret"}


def test_all_that_is_named_is_there(one, pod, container):
    names = {volume["name"]: volume for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in one["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names.keys() | claims
    assert names["settings"]["configMap"]["name"] == one["ConfigMap"]["metadata"]["name"]
    assert names["secrets"]["secret"]["secretName"] == one["Secret"]["metadata"]["name"]
    assert names["tls"]["secret"]["optional"] is True
    assert set(one["Secret"]["data"]) == {"keys.json", "admin-token"}
    selector = one["StatefulSet"]["spec"]["selector"]["matchLabels"]
    labels = one["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for chosen in (selector, one["Service"]["spec"]["selector"]):
        assert chosen
        assert chosen.items() <= labels.items()
    ports = {(port["name"], port["protocol"]) for port in container["ports"]}
    served = {(port["targetPort"], port["protocol"]) for port in one["Service"]["spec"]["ports"]}
    assert served == {("quic", "UDP"), ("websocket", "TCP")}
    rules = one["NetworkPolicy"]["spec"]["ingress"]
    assert {(port["port"], port["protocol"]) for rule in rules for port in rule["ports"]} == ports
    (guarded,) = [rule for rule in rules if "from" in rule]
    assert [port["port"] for port in guarded["ports"]] == ["admin"]


def test_the_settings_are_such_and_leave_time_to_drain(one, pod, container, tmp_path):
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    flag, path = container["args"]
    assert (flag, mounts[str(Path(path).parent)]) == ("--config", "settings")
    file = tmp_path / "vmrelay.toml"
    file.write_text(one["ConfigMap"]["data"][Path(path).name])
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    found = settings.resolve({"config": str(file)}, environment)
    by_name = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (found.port, found.port, found.admin.port) == (
        by_name["quic"],
        by_name["websocket"],
        by_name["admin"],
    )
    annotations = one["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(by_name["admin"])
    assert pod["terminationGracePeriodSeconds"] >= found.drain_timeout + 5
    for named in (found.auth_keys, found.admin_token):
        assert mounts[str(named.parent)] == "secrets"
        assert named.name in one["Secret"]["data"]
    commented = [line[1:] for line in file.read_text().splitlines() if line.startswith("#") and " = " in line]
    for named in tomllib.loads("\n".join(commented)).values():
        assert mounts[str(Path(named).parent)] == "tls"
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    state = next(place for place, name in mounts.items() if name == "state")
    assert f"STATE_DIRECTORY={state} " in dockerfile


def test_the_relays_of_a_cluster_reach_the_server_with_one_key(clustered):
    relays, server = clustered["StatefulSet", "vmrelay"], clustered["Deployment", "nats"]
    assert relays["spec"]["replicas"] == 3
    (container,) = relays["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    found = settings.resolve({}, environment)
    assert found.admin.port == 9433, "what one relay has several have too"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(found.cluster_key.parent)] == "secrets"
    assert set(clustered["Secret", "vmrelay"]["data"]) == {"keys.json", "admin-token", found.cluster_key.name}

    (url,) = found.cluster
    service = clustered["Service", "nats"]
    (port,) = service["spec"]["ports"]
    assert url == f"nats://{service['metadata']['name']}:{port['port']}"
    (nats,) = server["spec"]["template"]["spec"]["containers"]
    assert [str(each["containerPort"]) for each in nats["ports"]] == nats["args"][-1:]
    labels = server["spec"]["template"]["metadata"]["labels"]
    policy = clustered["NetworkPolicy", "nats"]["spec"]
    for selector in (service["spec"]["selector"], policy["podSelector"]["matchLabels"]):
        assert selector
        assert selector.items() <= labels.items()
    ((allowed,),) = [rule["from"] for rule in policy["ingress"]]
    theirs = relays["spec"]["template"]["metadata"]["labels"]
    for selector in (
        allowed["podSelector"],
        clustered["PodDisruptionBudget", "vmrelay"]["spec"]["selector"],
        relays["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"],
    ):
        assert selector["matchLabels"]
        assert selector["matchLabels"].items() <= theirs.items()
    assert not clustered["Service", "vmrelay"]["spec"]["selector"].items() <= labels.items()


def test_the_server_of_a_cluster_is_confined_as_the_relays_are(clustered):
    pods = [
        clustered[key]["spec"]["template"]["spec"]
        for key in (("StatefulSet", "vmrelay"), ("Deployment", "nats"))
    ]
    relay, server = (pod["containers"][0]["securityContext"] for pod in pods)
    assert server == relay
    for name in ("runAsNonRoot", "runAsUser", "seccompProfile"):
        assert pods[1]["securityContext"][name] == pods[0]["securityContext"][name]
    assert pods[1]["automountServiceAccountToken"] is False
    compose = yaml.safe_load((ROOT / "docker/docker-compose.yml").read_text())
    assert pods[1]["containers"][0]["image"] == compose["services"]["nats"]["image"]


def probe(port, what):
    """Ask as a kubelet does, by the pod's address; give the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", what["path"], headers={"Host": f"10.1.2.3:{port}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_relay_with_these_settings_answers_the_probes(one, container, tmp_path):
    """But for ports, which other relays of this machine may have, and where the secrets are."""
    port, admin = free_port(), free_port()
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    (tmp_path / "admin-token").write_text(TOKEN)
    file = tmp_path / "vmrelay.toml"
    file.write_text(one["ConfigMap"]["data"]["vmrelay.toml"].replace("/run/secrets/vmrelay", str(tmp_path)))
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    environment |= {
        "VMRELAY_ADMIN": environment["VMRELAY_ADMIN"].replace("9433", str(admin)),
        "VMRELAY_ADMIN_TOKEN": str(tmp_path / "admin-token"),
    }
    relay = Program(*THIS_TREE, "--config", file, "--port", port, environment=environment)
    try:
        relay.wait_for("admin API at")
        program, *words = container["startupProbe"]["exec"]["command"]
        assert program == "vmrelay"
        run(*THIS_TREE, *words, "--pid", relay.pid)
        for name in ("livenessProbe", "readinessProbe"):
            assert probe(admin, container[name]["httpGet"]) == 200
        asking = os.environ | environment
        assert "ROOM" in run(*THIS_TREE, "status", env=asking).stdout
        run(*THIS_TREE, "drain", env=asking)
        assert probe(admin, container["readinessProbe"]["httpGet"]) == 503
        assert probe(admin, container["livenessProbe"]["httpGet"]) == 200
    finally:
        relay.stop()
